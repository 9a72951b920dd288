//! Functions of hosts that the filter does not call, and that the SDK is linked against.

use proxy_wasm::types::Status;

macro_rules! unused {
    ($($name:ident)*) => {
        $(
            // Without parameters: who calls it is told of an error, and the test fails.
            #[unsafe(no_mangle)]
            extern "C" fn $name() -> Status {
                eprintln!("{} is not a part of this host", stringify!($name));
                Status::InternalFailure
            }
        )*
    };
}

unused! {
    proxy_add_header_map_value
    proxy_call_foreign_function
    proxy_close_stream
    proxy_continue_stream
    proxy_get_current_time_nanoseconds
    proxy_get_header_map_value
    proxy_get_log_level
    proxy_get_metric
    proxy_get_status
    proxy_grpc_call
    proxy_grpc_cancel
    proxy_grpc_close
    proxy_grpc_send
    proxy_grpc_stream
    proxy_resolve_shared_queue
    proxy_set_header_map_pairs
}
