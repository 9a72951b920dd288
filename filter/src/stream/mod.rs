//! One client's request.

mod read;

use crate::{
    budget,
    callouts::{self, outcome, read_headers, send_reply},
    lease,
    observed::{self, Observed},
    traces,
    writes::Writes,
};
use miroir_core::{
    cors,
    http::{CallId, Callout, Outcome, Reply, RequestHead},
    intake::{Collector, Intake},
    operation::Operation,
    path::ApiPath,
    protocol::SECRET_HEADER,
    topology::{Hold, Topology},
    trace::GATEWAY_HEADER,
    write::Verdict,
};
use proxy_wasm::{
    hostcalls,
    traits::{Context, HttpContext},
    types::{Action, BufferType, MapType},
};
use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc, time::Instant};

/// Where a request is.
enum State {
    /// The request goes on to the next filter, unchanged.
    Passing,
    /// The path is outside of the cluster's prefix: the filter does nothing.
    Foreign,
    /// Its body comes in.
    Collecting(Box<Collector>),
    /// The body is complete; the request waits for the check whether its client may write.
    Judging(Box<Collector>),
    /// The body is complete; the read waits for the control plane's answer with this token.
    Asking(Box<Collector>, u32),
    /// The operation waits for answers.
    Waiting(Operation, Box<Observed>),
    /// The request is answered, or the root context will answer it.
    Left,
}

/// The context of one request.
pub struct Stream {
    context_id: u32,
    vm: String,
    /// The topology of the read. Before the read begins, it is the one that the request arrived under, without a hold.
    topology: Arc<Topology>,
    /// The hold on the topology of the read.
    hold: Option<Hold>,
    writes: Rc<RefCell<Writes>>,
    state: State,
    /// Whether the check of the client's right has been sent.
    judged: bool,
    /// Envoy's token of that check.
    judging: Option<u32>,
    /// It may.
    allowed: bool,
    calls: HashMap<u32, CallId>,
    /// When the request began, from [`traces::now`], if tracing is configured.
    begun: u64,
    /// For how many seconds the control plane has not answered, if the reply must say so.
    cut_off: Option<u64>,
    /// When the operation must have its answer.
    deadline: Option<Instant>,
    /// The indexes whose settings affect the answer.
    indexes: Vec<String>,
    /// A copy of the read as it arrived, to start it again if the worker was paused and its topology is outdated.
    read: Option<Box<Collector>>,
    /// When the read first asked whether it may go on.
    asking: Option<Instant>,
    /// The CORS headers that every answer gets, whichever server gives it.
    cors: &'static [(&'static str, &'static str)],
}

impl Stream {
    pub fn new(context_id: u32, vm: String, topology: Arc<Topology>, writes: Rc<RefCell<Writes>>) -> Self {
        Self {
            context_id,
            vm,
            topology,
            hold: None,
            writes,
            state: State::Passing,
            judged: false,
            judging: None,
            allowed: false,
            calls: HashMap::new(),
            begun: 0,
            cut_off: None,
            deadline: None,
            indexes: Vec::new(),
            read: None,
            asking: None,
            cors: &[],
        }
    }

    /// Answers before an operation exists, and drops the body.
    fn leave(&mut self, reply: &Reply) {
        self.state = State::Left;
        budget::release(self.context_id);
        self.refuse(reply);
    }

    /// Takes a chunk of the body.
    fn collect(&mut self, chunk: &[u8], end_of_stream: bool) {
        let State::Collecting(collector) = &mut self.state else { return };
        let pushed = collector.push(chunk);
        let held = collector.held();
        let early = if self.judged || end_of_stream { None } else { collector.judge_early() };
        let limits = self.topology.config().limits;
        if let Err(reply) = pushed {
            self.leave(&reply);
        } else if let Err(over) = budget::charge(self.context_id, self.context_id, held, &limits) {
            self.leave(&over.error().reply());
        } else if let Some(call) = early {
            self.judge(&call);
        }
    }

    /// Sends the check whether the client may do this.
    fn judge(&mut self, call: &Callout) {
        self.judged = true;
        self.judging = callouts::send(&self.topology, call);
    }

    /// Handles the result of that check.
    fn digest_verdict(&mut self, outcome: Outcome) {
        let (State::Collecting(collector) | State::Judging(collector)) = &self.state else { return };
        match (collector.verdict(outcome), std::mem::replace(&mut self.state, State::Left)) {
            (Verdict::Refused(reply), State::Collecting(_))
            | (Verdict::Refused(reply) | Verdict::Unknown(reply), State::Judging(_)) => self.leave(&reply),
            (Verdict::Allowed, State::Judging(collector)) => self.hand_over(*collector),
            (Verdict::Allowed, state) => (self.allowed, self.state) = (true, state),
            // Its begin will tell.
            (_, state) => self.state = state,
        }
    }

    /// The body is whole.
    fn start(&mut self) {
        if matches!(self.state, State::Collecting(_)) {
            budget::whole(self.context_id);
        }
        match std::mem::replace(&mut self.state, State::Left) {
            State::Collecting(collector) if collector.is_write() => self.write(collector),
            State::Collecting(collector) => self.read_if_allowed(collector),
            state => self.state = state,
        }
    }

    /// Starts the write. If decoding the body makes it large, the client's right to write is checked first.
    fn write(&mut self, collector: Box<Collector>) {
        let Some(call) = (!self.allowed).then(|| collector.judge_encoded()).flatten() else {
            self.hand_over(*collector);
            return;
        };
        if self.judging.is_none() {
            self.judge(&call);
        }
        self.state = State::Judging(collector);
        if self.judging.is_none() {
            self.digest_verdict(Outcome::Failed);
        }
    }

    fn hand_over(&self, collector: Collector) {
        self.writes.borrow_mut().hand_over(self.context_id, collector, self.begun);
    }

    /// Answers a request that has not begun.
    fn refuse(&self, reply: &Reply) {
        observed::answered("refusal", reply, false);
        send_reply(reply);
    }

    fn action(&self) -> Action {
        match self.state {
            State::Passing | State::Foreign => Action::Continue,
            _ => Action::Pause,
        }
    }
}

impl Context for Stream {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body_size: usize, _: usize) {
        if lease::digest(token, headers, body_size).is_some() {
            match std::mem::replace(&mut self.state, State::Left) {
                State::Asking(collector, asked) if asked == token => self.read_if_allowed(collector),
                state => self.state = state,
            }
            return;
        }
        if self.judging == Some(token) {
            self.judging = None;
            self.digest_verdict(outcome(headers, body_size));
            return;
        }
        let Some(id) = self.calls.remove(&token) else { return };
        // If the worker was paused meanwhile, the read must not continue with an outdated topology.
        if matches!(self.state, State::Waiting(..)) && !self.may_go_on() {
            return;
        }
        match std::mem::replace(&mut self.state, State::Left) {
            State::Waiting(operation, mut observed) => {
                let progress = observed.digest(operation, id, outcome(headers, body_size));
                self.advance(progress, *observed);
            }
            state => self.state = state,
        }
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        let (mut head, target) = request_head();
        let Some(path) = self.topology.own_path(&target).map(ApiPath::parse) else {
            self.state = State::Foreign;
            return Action::Continue;
        };
        let Ok(path) = path else {
            self.state = State::Left;
            self.refuse(&Reply { status: 400, headers: Vec::new(), body: Vec::new() });
            return Action::Pause;
        };
        head.path = path;
        if self.topology.config().tracing.is_some() {
            self.begun = traces::now();
        }
        self.cors = cors::headers(&head);
        match Intake::of(Arc::clone(&self.topology), &self.vm, head) {
            Intake::Pass => {
                // Only gateways may send the secret, and this request is a client's. The header with Envoy's span is removed
                // because Envoy's router sends its own.
                for name in [SECRET_HEADER, GATEWAY_HEADER] {
                    if hostcalls::set_map_value(MapType::HttpRequestHeaders, name, None).is_err() {
                        log::warn!("header {name} cannot be removed");
                    }
                }
            }
            Intake::Reply(reply) => {
                self.state = State::Left;
                self.refuse(&reply);
            }
            Intake::Collect(collector) => {
                let limits = self.topology.config().limits;
                match budget::begin(self.context_id, collector.is_read(), &limits) {
                    Ok(()) => self.state = State::Collecting(collector),
                    Err(over) => self.leave(&over.error().reply()),
                }
                if end_of_stream {
                    self.start();
                }
            }
        }
        self.action()
    }

    /// Takes every chunk out of Envoy's buffer immediately, so that Envoy never holds a whole payload.
    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if matches!(self.state, State::Collecting(_)) {
            let chunk = hostcalls::get_buffer(BufferType::HttpRequestBody, 0, size).ok().flatten();
            self.collect(&chunk.unwrap_or_default(), end_of_stream);
        }
        if !matches!(self.state, State::Passing | State::Foreign) && size > 0 {
            let drained = hostcalls::set_buffer(BufferType::HttpRequestBody, 0, size, &[]);
            if drained.is_err() {
                log::error!("cannot drain the request's buffer");
            }
        }
        if end_of_stream {
            self.start();
        }
        self.action()
    }

    /// Adds headers also to answers of the control plane and of Envoy itself.
    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        // Envoy sets `text/plain` on its own bodies if no type is set. Only the refused preflight has neither a type nor CORS
        // headers.
        if self.cors.is_empty()
            && matches!(self.state, State::Left)
            && hostcalls::set_map_value(MapType::HttpResponseHeaders, "content-type", None).is_err()
        {
            log::warn!("header content-type cannot be removed");
        }
        for (name, value) in self.cors {
            if hostcalls::set_map_value(MapType::HttpResponseHeaders, name, Some(value)).is_err() {
                log::warn!("header {name} cannot be added");
            }
        }
        Action::Continue
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.start();
        self.action()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // A write's answer may come while its own stream is being dropped; then nobody gets it.
        if let Ok(mut writes) = self.writes.try_borrow_mut() {
            writes.forget_stream(self.context_id);
        }
    }
}

/// The client's request head without its path, and the request's target as it was sent.
fn request_head() -> (RequestHead, String) {
    let (mut head, mut target) = (RequestHead::default(), String::new());
    for (name, value) in read_headers(MapType::HttpRequestHeaders) {
        match name.as_str() {
            ":method" => head.method = value,
            ":path" => target = value,
            _ => head.headers.push((name, value)),
        }
    }
    (head, target)
}
