//! What the host knows: per VM, and so per thread.

use proxy_wasm::types::Status;
use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

/// Headers in order; names in lower case.
pub(crate) type Headers = Vec<(String, String)>;

/// An HTTP request that the plugin has sent, and that is not answered yet.
#[derive(Clone, Debug)]
pub struct Callout {
    /// Names it.
    pub token: u32,
    /// The context that has sent it.
    pub context: u32,
    /// The Envoy cluster that is asked.
    pub cluster: String,
    /// Its headers, `:method` and `:path` among them.
    pub headers: Headers,
    /// Its body.
    pub body: Vec<u8>,
    /// How long its answer may take.
    pub timeout: Duration,
}

impl Callout {
    /// A header's value; empty where there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        let header = self.headers.iter().find(|(key, _)| key == name);
        header.map_or("", |(_, value)| value)
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &str {
        self.header(":path")
    }
}

/// What the plugin has answered a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u32,
    /// Headers in order.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A client's request.
#[derive(Debug, Default)]
pub(crate) struct StreamState {
    pub(crate) request: Headers,
    /// What has come of the body, and has not been taken out of the buffer.
    pub(crate) buffer: Vec<u8>,
    pub(crate) response: Headers,
    pub(crate) reply: Option<Reply>,
    /// What is told to access logs.
    pub(crate) properties: BTreeMap<String, Vec<u8>>,
}

/// The answer to a callout, while the plugin is called with it.
#[derive(Debug, Default)]
pub(crate) struct CallAnswer {
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) configuration: Vec<u8>,
    /// The context that is in effect: that of the callback, or another one that the plugin has chosen.
    pub(crate) effective: u32,
    pub(crate) streams: HashMap<u32, StreamState>,
    pub(crate) callouts: Vec<Callout>,
    pub(crate) last_token: u32,
    /// Contexts are numbered from the root context's on.
    pub(crate) last_context: u32,
    /// Clusters without a healthy endpoint, and clusters that Envoy does not have.
    pub(crate) refused: HashMap<String, Status>,
    pub(crate) answer: CallAnswer,
    pub(crate) queues: BTreeMap<String, (u32, VecDeque<Vec<u8>>)>,
    pub(crate) shared: HashMap<String, Vec<u8>>,
    pub(crate) metrics: Vec<(String, u64)>,
    pub(crate) tick_period: Duration,
    pub(crate) is_done: bool,
    pub(crate) log: Vec<String>,
    /// The client's address and port.
    pub(crate) client: String,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// Looks at what the host of this thread knows, or changes it.
pub(crate) fn with<T>(act: impl FnOnce(&mut State) -> T) -> T {
    STATE.with_borrow_mut(act)
}

/// The same for a function that the plugin calls, which it may do while its thread ends.
pub(crate) fn answer(act: impl FnOnce(&mut State) -> Status) -> Status {
    STATE.try_with(|state| act(&mut state.borrow_mut())).unwrap_or(Status::InternalFailure)
}

impl State {
    /// The stream whose context is in effect.
    pub(crate) fn stream(&mut self) -> Option<&mut StreamState> {
        self.streams.get_mut(&self.effective)
    }
}
