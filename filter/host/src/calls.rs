//! The host's functions, as the SDK imports them. Source: proxy-wasm/spec, abi-versions/v0.2.1.
#![allow(clippy::missing_safety_doc, reason = "the ABI says what each argument is")]
// SAFETY, for all functions here: the SDK passes pointers to as many bytes as it says, which live until the function returns, and
// pointers to its own variables for what is returned.

use crate::{
    plugin::allocate,
    state::{Callout, Headers, Reply, State, answer},
};
use proxy_wasm::types::{BufferType, LogLevel, MapType, MetricType, Status};
use std::{slice, time::Duration};

unsafe fn bytes<'a>(data: *const u8, size: usize) -> &'a [u8] {
    if data.is_null() { &[] } else { unsafe { slice::from_raw_parts(data, size) } }
}

unsafe fn text(data: *const u8, size: usize) -> String {
    String::from_utf8_lossy(unsafe { bytes(data, size) }).into_owned()
}

/// Gives bytes to the plugin.
unsafe fn give(value: &[u8], data: *mut *mut u8, size: *mut usize) -> Status {
    unsafe {
        *data = allocate(value);
        *size = value.len();
    }
    Status::Ok
}

/// A list of pairs as the ABI has it: how many, the lengths of each, and then all of them, each with a zero behind it.
fn serialized(headers: &Headers) -> Vec<u8> {
    let length = |length: usize| u32::try_from(length).expect("headers of less than 4 GiB").to_le_bytes();
    let mut all = length(headers.len()).to_vec();
    for (name, value) in headers {
        all.extend([length(name.len()), length(value.len())].concat());
    }
    for part in headers.iter().flat_map(|(name, value)| [name, value]) {
        all.extend_from_slice(part.as_bytes());
        all.push(0);
    }
    all
}

fn deserialized(all: &[u8]) -> Headers {
    let length = |at: usize| u32::from_le_bytes(all[at..at + 4].try_into().expect("four bytes")) as usize;
    let count = length(0);
    let mut at = 4 + count * 8;
    let mut part = |length: usize| {
        let part = String::from_utf8_lossy(&all[at..at + length]).into_owned();
        at += length + 1;
        part
    };
    (0..count).map(|pair| (part(length(4 + pair * 8)), part(length(8 + pair * 8)))).collect()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_log(level: LogLevel, data: *const u8, size: usize) -> Status {
    let message = unsafe { text(data, size) };
    if level == LogLevel::Critical {
        // That is what a panic says.
        eprintln!("{message}");
    }
    answer(|state| {
        state.log.push(message);
        Status::Ok
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_set_tick_period_milliseconds(period: u32) -> Status {
    answer(|state| {
        state.tick_period = Duration::from_millis(period.into());
        Status::Ok
    })
}

fn buffer(state: &mut State, kind: BufferType) -> Option<&mut Vec<u8>> {
    match kind {
        BufferType::HttpRequestBody => state.stream().map(|stream| &mut stream.buffer),
        BufferType::HttpCallResponseBody => Some(&mut state.answer.body),
        BufferType::PluginConfiguration => Some(&mut state.configuration),
        _ => None,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_get_buffer_bytes(
    kind: BufferType,
    start: usize,
    max_size: usize,
    data: *mut *mut u8,
    size: *mut usize,
) -> Status {
    answer(|state| {
        let Some(buffer) = buffer(state, kind) else { return Status::NotFound };
        let end = start.saturating_add(max_size).min(buffer.len());
        unsafe { give(buffer.get(start..end).unwrap_or_default(), data, size) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_set_buffer_bytes(
    kind: BufferType,
    start: usize,
    size: usize,
    data: *const u8,
    data_size: usize,
) -> Status {
    answer(|state| {
        let Some(buffer) = buffer(state, kind) else { return Status::NotFound };
        let end = start.saturating_add(size).min(buffer.len());
        buffer.splice(start.min(end)..end, unsafe { bytes(data, data_size) }.iter().copied());
        Status::Ok
    })
}

fn headers(state: &mut State, map: MapType) -> Option<&mut Headers> {
    match map {
        MapType::HttpRequestHeaders => state.stream().map(|stream| &mut stream.request),
        MapType::HttpResponseHeaders => state.stream().map(|stream| &mut stream.response),
        MapType::HttpCallResponseHeaders => Some(&mut state.answer.headers),
        _ => None,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_get_header_map_pairs(
    map: MapType,
    data: *mut *mut u8,
    size: *mut usize,
) -> Status {
    answer(|state| {
        let Some(headers) = headers(state, map) else { return Status::BadArgument };
        unsafe { give(&serialized(headers), data, size) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_replace_header_map_value(
    map: MapType,
    key: *const u8,
    key_size: usize,
    value: *const u8,
    value_size: usize,
) -> Status {
    let (key, value) = unsafe { (text(key, key_size), text(value, value_size)) };
    answer(|state| {
        let Some(headers) = headers(state, map) else { return Status::BadArgument };
        headers.retain(|(name, _)| *name != key);
        headers.push((key, value));
        Status::Ok
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_remove_header_map_value(map: MapType, key: *const u8, key_size: usize) -> Status {
    let key = unsafe { text(key, key_size) };
    answer(|state| {
        let Some(headers) = headers(state, map) else { return Status::BadArgument };
        headers.retain(|(name, _)| *name != key);
        Status::Ok
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_get_property(
    path: *const u8,
    path_size: usize,
    data: *mut *mut u8,
    size: *mut usize,
) -> Status {
    let path = unsafe { text(path, path_size) };
    answer(|state| {
        let value = match path.as_str() {
            "source\0address" => Some(state.client.clone()),
            "xds\0node\0id" => Some("gateway".to_owned()),
            "request\0path" => state.stream().and_then(|stream| {
                let path = stream.request.iter().find(|(name, _)| name == ":path");
                path.map(|(_, path)| path.clone())
            }),
            _ => None,
        };
        match value {
            Some(value) => unsafe { give(value.as_bytes(), data, size) },
            None => Status::NotFound,
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_set_property(
    path: *const u8,
    path_size: usize,
    data: *const u8,
    size: usize,
) -> Status {
    let (path, value) = unsafe { (text(path, path_size), bytes(data, size).to_vec()) };
    answer(|state| {
        let Some(stream) = state.stream() else { return Status::NotFound };
        stream.properties.insert(path, value);
        Status::Ok
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_get_shared_data(
    key: *const u8,
    key_size: usize,
    data: *mut *mut u8,
    size: *mut usize,
    cas: *mut u32,
) -> Status {
    let key = unsafe { text(key, key_size) };
    answer(|state| match state.shared.get(&key) {
        Some(value) => unsafe {
            *cas = 1;
            give(value, data, size)
        },
        None => Status::NotFound,
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_set_shared_data(
    key: *const u8,
    key_size: usize,
    data: *const u8,
    size: usize,
    _: u32,
) -> Status {
    let (key, value) = unsafe { (text(key, key_size), bytes(data, size).to_vec()) };
    answer(|state| {
        state.shared.insert(key, value);
        Status::Ok
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_register_shared_queue(name: *const u8, size: usize, id: *mut u32) -> Status {
    let name = unsafe { text(name, size) };
    answer(|state| {
        let next = u32::try_from(state.queues.len()).expect("few queues") + 1;
        let (queue, _) = state.queues.entry(name).or_insert_with(|| (next, Default::default()));
        unsafe { *id = *queue };
        Status::Ok
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_enqueue_shared_queue(id: u32, data: *const u8, size: usize) -> Status {
    let item = unsafe { bytes(data, size).to_vec() };
    answer(|state| match state.queues.values_mut().find(|(queue, _)| *queue == id) {
        Some((_, items)) => {
            items.push_back(item);
            Status::Ok
        }
        None => Status::NotFound,
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_dequeue_shared_queue(id: u32, data: *mut *mut u8, size: *mut usize) -> Status {
    answer(|state| match state.queues.values_mut().find(|(queue, _)| *queue == id) {
        Some((_, items)) => match items.pop_front() {
            Some(item) => unsafe { give(&item, data, size) },
            None => Status::Empty,
        },
        None => Status::NotFound,
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_send_local_response(
    status: u32,
    _: *const u8,
    _: usize,
    body: *const u8,
    body_size: usize,
    headers: *const u8,
    headers_size: usize,
    _: i32,
) -> Status {
    let (body, headers) = unsafe { (bytes(body, body_size), bytes(headers, headers_size)) };
    let reply = Reply { status, headers: deserialized(headers), body: body.to_vec() };
    answer(|state| {
        let Some(stream) = state.stream() else { return Status::BadArgument };
        assert_eq!(stream.reply, None, "a stream is answered twice");
        stream.reply = Some(reply);
        Status::Ok
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_http_call(
    upstream: *const u8,
    upstream_size: usize,
    headers: *const u8,
    headers_size: usize,
    body: *const u8,
    body_size: usize,
    _: *const u8,
    _: usize,
    timeout: u32,
    token: *mut u32,
) -> Status {
    let cluster = unsafe { text(upstream, upstream_size) };
    let (headers, body) = unsafe { (bytes(headers, headers_size), bytes(body, body_size)) };
    answer(|state| {
        if let Some(refused) = state.refused.get(&cluster) {
            return *refused;
        }
        state.last_token += 1;
        unsafe { *token = state.last_token };
        state.callouts.push(Callout {
            token: state.last_token,
            // The SDK tells the context that was called of the answer, whichever is in effect.
            context: state.effective,
            cluster,
            headers: deserialized(headers),
            body: body.to_vec(),
            timeout: Duration::from_millis(timeout.into()),
        });
        Status::Ok
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_set_effective_context(context: u32) -> Status {
    answer(|state| {
        // The root context is 1.
        if context != 1 && !state.streams.contains_key(&context) {
            return Status::BadArgument;
        }
        state.effective = context;
        Status::Ok
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_done() -> Status {
    answer(|state| {
        state.is_done = true;
        Status::Ok
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_define_metric(
    _: MetricType,
    name: *const u8,
    size: usize,
    id: *mut u32,
) -> Status {
    let name = unsafe { text(name, size) };
    answer(|state| {
        unsafe { *id = u32::try_from(state.metrics.len()).expect("few metrics") };
        state.metrics.push((name, 0));
        Status::Ok
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_increment_metric(id: u32, by: i64) -> Status {
    answer(|state| match state.metrics.get_mut(id as usize) {
        Some((_, value)) => {
            *value = value.saturating_add_signed(by);
            Status::Ok
        }
        None => Status::NotFound,
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_record_metric(id: u32, value: u64) -> Status {
    answer(|state| match state.metrics.get_mut(id as usize) {
        Some((_, last)) => {
            *last = value;
            Status::Ok
        }
        None => Status::NotFound,
    })
}
