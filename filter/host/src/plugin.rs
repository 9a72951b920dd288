//! The plugin's functions, as the SDK exports them: the host's side of the ABI.

use proxy_wasm::types::Action;

unsafe extern "C" {
    pub(crate) safe fn proxy_on_context_create(context: u32, root: u32);
    pub(crate) safe fn proxy_on_vm_start(context: u32, size: usize) -> bool;
    pub(crate) safe fn proxy_on_configure(context: u32, size: usize) -> bool;
    pub(crate) safe fn proxy_on_tick(context: u32);
    pub(crate) safe fn proxy_on_queue_ready(context: u32, queue: u32);
    pub(crate) safe fn proxy_on_request_headers(context: u32, headers: usize, end_of_stream: bool) -> Action;
    pub(crate) safe fn proxy_on_request_body(context: u32, size: usize, end_of_stream: bool) -> Action;
    pub(crate) safe fn proxy_on_response_headers(context: u32, headers: usize, end_of_stream: bool)
    -> Action;
    pub(crate) safe fn proxy_on_http_call_response(
        context: u32,
        token: u32,
        headers: usize,
        body_size: usize,
        trailers: usize,
    );
    pub(crate) safe fn proxy_on_done(context: u32) -> bool;
    pub(crate) safe fn proxy_on_log(context: u32);
    pub(crate) safe fn proxy_on_delete(context: u32);
    pub(crate) safe fn proxy_on_memory_allocate(size: usize) -> *mut u8;
}

/// Memory that the plugin will own, with these bytes.
pub(crate) fn allocate(bytes: &[u8]) -> *mut u8 {
    let memory = proxy_on_memory_allocate(bytes.len());
    // SAFETY: the plugin has allocated so many bytes for this, and nobody else knows of them yet.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), memory, bytes.len()) };
    memory
}
