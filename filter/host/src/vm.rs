//! A VM, as a test drives it.

use crate::{
    plugin,
    state::{Callout, Headers, Reply, StreamState, with},
};
use proxy_wasm::types::{Action, Status};
use std::{
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

/// The root context.
const ROOT: u32 = 1;

/// Runs `test` with a VM of a plugin whose `initialize` is the SDK's entry point, before it has a configuration.
///
/// # Panics
/// `test` does.
pub fn in_vm(initialize: extern "C" fn(), test: impl FnOnce(&Vm) + Send) {
    // The SDK makes itself the process's logger, once.
    static FIRST: Mutex<()> = Mutex::new(());
    thread::scope(|scope| {
        let vm = scope.spawn(|| {
            let first = FIRST.lock().unwrap_or_else(PoisonError::into_inner);
            initialize();
            drop(first);
            with(|state| {
                state.client = "127.0.0.1:1234".to_owned();
                state.last_context = ROOT;
            });
            plugin::proxy_on_context_create(ROOT, 0);
            assert!(plugin::proxy_on_vm_start(ROOT, 0));
            test(&Vm(()));
        });
        if let Err(panic) = vm.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// The VM of this thread.
#[derive(Debug)]
pub struct Vm(());

impl Vm {
    /// Configures the plugin; `false` where it refuses.
    #[must_use]
    pub fn configure(&self, configuration: &str) -> bool {
        with(|state| {
            state.effective = ROOT;
            state.configuration = configuration.as_bytes().to_vec();
        });
        plugin::proxy_on_configure(ROOT, configuration.len())
    }

    /// A client's request; its body is yet to come where there is one.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], has_body: bool) -> Stream {
        let request: Headers = [(":method", method), (":path", path), (":authority", "search.example.com")]
            .iter()
            .chain(headers)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let count = request.len();
        let id = with(|state| {
            state.last_context += 1;
            state.effective = state.last_context;
            state.streams.insert(state.last_context, StreamState { request, ..StreamState::default() });
            state.last_context
        });
        plugin::proxy_on_context_create(id, ROOT);
        let action = plugin::proxy_on_request_headers(id, count, !has_body);
        Stream { id, action }
    }

    /// The next part of a request's body, or the last. What the plugin leaves in the buffer, Envoy holds.
    pub fn body(&self, stream: &mut Stream, part: &[u8], is_last: bool) {
        let size = with(|state| {
            state.effective = stream.id;
            let buffer = &mut state.streams.get_mut(&stream.id).expect("a stream").buffer;
            buffer.extend_from_slice(part);
            buffer.len()
        });
        stream.action = plugin::proxy_on_request_body(stream.id, size, is_last);
    }

    /// How many bytes of a request's body Envoy holds.
    #[must_use]
    pub fn buffered(&self, stream: &Stream) -> usize {
        with(|state| state.streams[&stream.id].buffer.len())
    }

    /// The client leaves, or has its answer: nobody hears of what the stream has asked for.
    pub fn end(&self, stream: Stream) {
        with(|state| state.effective = stream.id);
        plugin::proxy_on_done(stream.id);
        plugin::proxy_on_log(stream.id);
        plugin::proxy_on_delete(stream.id);
        with(|state| {
            state.streams.remove(&stream.id);
            state.callouts.retain(|call| call.context != stream.id);
            state.effective = ROOT;
        });
    }

    /// What the plugin has answered a client.
    #[must_use]
    pub fn reply(&self, stream: &Stream) -> Option<Reply> {
        with(|state| state.streams[&stream.id].reply.clone())
    }

    /// Envoy sends a reply of another's making, or the plugin's own: the headers that come of it.
    pub fn response_headers(&self, stream: &Stream, headers: &[(&str, &str)]) -> Vec<(String, String)> {
        let headers: Headers =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let count = headers.len();
        with(|state| {
            state.effective = stream.id;
            state.streams.get_mut(&stream.id).expect("a stream").response = headers;
        });
        plugin::proxy_on_response_headers(stream.id, count, false);
        with(|state| state.streams[&stream.id].response.clone())
    }

    /// A request's headers as they go on to the router.
    #[must_use]
    pub fn request_headers(&self, stream: &Stream) -> Vec<(String, String)> {
        with(|state| state.streams[&stream.id].request.clone())
    }

    /// What an access log can print of a request.
    #[must_use]
    pub fn property(&self, stream: &Stream, name: &str) -> Option<String> {
        let value = with(|state| state.streams[&stream.id].properties.get(name).cloned())?;
        Some(String::from_utf8_lossy(&value).into_owned())
    }

    /// Callouts that wait for their answers, in the order in which they were sent.
    #[must_use]
    pub fn callouts(&self) -> Vec<Callout> {
        with(|state| state.callouts.clone())
    }

    /// Those whose path begins so.
    #[must_use]
    pub fn callouts_to(&self, path: &str) -> Vec<Callout> {
        self.callouts().into_iter().filter(|call| call.path().starts_with(path)).collect()
    }

    /// Answers a callout.
    ///
    /// # Panics
    /// There is no such callout under way.
    pub fn answer(&self, call: &Callout, status: u16, body: &str) {
        let headers = vec![
            (":status".to_owned(), status.to_string()),
            ("content-type".to_owned(), "application/json".to_owned()),
        ];
        self.respond(call, headers, body.as_bytes().to_vec());
    }

    /// A callout has failed: Envoy tells of that by an answer without headers.
    ///
    /// # Panics
    /// There is no such callout under way.
    pub fn fail(&self, call: &Callout) {
        self.respond(call, Headers::new(), Vec::new());
    }

    fn respond(&self, call: &Callout, headers: Headers, body: Vec<u8>) {
        let (count, size) = (headers.len(), body.len());
        with(|state| {
            let place = state.callouts.iter().position(|other| other.token == call.token);
            state.callouts.remove(place.expect("a callout that is under way"));
            (state.answer.headers, state.answer.body) = (headers, body);
            state.effective = call.context;
        });
        plugin::proxy_on_http_call_response(call.context, call.token, count, size, 0);
        with(|state| state.effective = ROOT);
    }

    /// Nothing is sent to a cluster: it has no healthy endpoint, or Envoy does not have it.
    pub fn refuse(&self, cluster: &str, is_unknown: bool) {
        let status = if is_unknown { Status::BadArgument } else { Status::InternalFailure };
        with(|state| state.refused.insert(cluster.to_owned(), status));
    }

    /// A cluster has a healthy endpoint again.
    pub fn accept(&self, cluster: &str) {
        with(|state| state.refused.remove(cluster));
    }

    /// Calls the root context for all queues that have something in them: Envoy does that once the stream's callback is over.
    pub fn run_queues(&self) {
        let waiting: Vec<u32> = with(|state| {
            state.effective = ROOT;
            let queues = state.queues.values().filter(|(_, items)| !items.is_empty());
            queues.map(|(id, _)| *id).collect()
        });
        waiting.into_iter().for_each(|queue| plugin::proxy_on_queue_ready(ROOT, queue));
    }

    /// Calls the root context as time goes by.
    pub fn tick(&self) {
        with(|state| state.effective = ROOT);
        plugin::proxy_on_tick(ROOT);
    }

    /// How often the plugin wants that.
    #[must_use]
    pub fn tick_period(&self) -> Duration {
        with(|state| state.tick_period)
    }

    /// A newer configuration is in force, and no stream of this one is left; whether the plugin lets go of it at once.
    #[must_use]
    pub fn let_go(&self) -> bool {
        with(|state| state.effective = ROOT);
        plugin::proxy_on_done(ROOT)
    }

    /// Whether the plugin has let go of it later.
    #[must_use]
    pub fn has_let_go(&self) -> bool {
        with(|state| state.is_done)
    }

    /// A statistic's value: of a histogram, the last.
    #[must_use]
    pub fn metric(&self, name: &str) -> u64 {
        with(|state| state.metrics.iter().filter(|(known, _)| known == name).map(|(_, value)| value).sum())
    }

    /// What the plugin has logged.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        with(|state| state.log.clone())
    }

    /// Requests that come from now on are of a client at this address.
    pub fn client(&self, address: &str) {
        with(|state| state.client = format!("{address}:1234"));
    }
}

/// A client's request under way.
#[derive(Debug)]
pub struct Stream {
    id: u32,
    action: Action,
}

impl Stream {
    /// Whether it goes on to the next filter.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.action == Action::Continue
    }

    /// Its context.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }
}
