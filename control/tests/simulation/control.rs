//! The control plane in a simulation: the real code, on a runtime whose time is the simulation's.

use super::{
    random::SeededRandom,
    storage::{Disk, Process},
};
use axum::{
    Router,
    body::{Body, Bytes},
    http::Request,
};
use futures_util::future::BoxFuture;
use miroir_control::{
    api,
    base::{
        config::{CONTROL_CLUSTER, ClusterConfig},
        error::Cause,
        outbound::Outbound,
        secrets::Secrets,
        time::{Clock, Instant, Nanos},
        tls::NodeTls,
    },
    cluster::{Cluster, Options, TaskLimits, World as Seams},
    ledger::Ledger,
    node::{Call, NoAnswer, NodeAnswer, Transport},
    publish::{Publisher, Snapshot, subscribers::Subscribers},
    serve,
};
use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};
use tokio::{runtime::Runtime, sync::oneshot, task::JoinHandle};
use tower::ServiceExt;

/// The time of day at the start of a history: the start of 2024.
pub const START: Nanos = 1_704_067_200_000_000_000;

/// What a client of the control plane sends.
#[derive(Clone, Debug)]
pub struct ControlRequest {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// What it gets.
#[derive(Clone, Debug)]
pub struct ControlReply {
    pub status: u16,
    pub body: Vec<u8>,
}

/// What comes out of the control plane.
pub enum Output {
    /// A request to a node, and where its answer goes.
    Call(Call, oneshot::Sender<Result<NodeAnswer, NoAnswer>>),
    /// The reply to the request with this number.
    Reply(u64, ControlReply),
}

/// Collects what comes out, and wakes the simulation.
#[derive(Default)]
struct Outbox {
    outputs: Vec<Output>,
    waker: Option<Waker>,
}

impl Outbox {
    fn push(&mut self, output: Output) {
        self.outputs.push(output);
        self.waker.take().into_iter().for_each(Waker::wake);
    }
}

/// Carries requests to nodes, through the simulation.
struct SimulatedTransport {
    outbox: Arc<Mutex<Outbox>>,
    process: Arc<Process>,
}

impl std::fmt::Debug for SimulatedTransport {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("SimulatedTransport")
    }
}

impl Transport for SimulatedTransport {
    fn send(&self, call: Call) -> BoxFuture<'_, Result<NodeAnswer, NoAnswer>> {
        Box::pin(async move {
            if self.process.is_dead() {
                return std::future::pending().await;
            }
            let timeout = call.timeout;
            let (reply, answer) = oneshot::channel();
            self.outbox.lock().unwrap().push(Output::Call(call, reply));
            match tokio::time::timeout(timeout, answer).await {
                Ok(Ok(answer)) => answer,
                _ => Err(no_answer(false)),
            }
        })
    }
}

/// What there is instead of an answer.
pub fn no_answer(is_unsent: bool) -> NoAnswer {
    let kind = if is_unsent { io::ErrorKind::ConnectionRefused } else { io::ErrorKind::TimedOut };
    let source: Cause = io::Error::from(kind).into();
    NoAnswer { is_unsent, source }
}

/// The control plane's clocks: the monotonic one is the runtime's; that of the day can be set.
#[derive(Debug)]
pub struct SimulatedClock {
    begun: Instant,
    wall: AtomicI64,
}

impl Clock for SimulatedClock {
    fn wall(&self) -> Nanos {
        let passed = Nanos::try_from(self.begun.elapsed().as_nanos()).unwrap();
        self.wall.load(Ordering::Relaxed) + passed
    }

    fn monotonic(&self) -> Instant {
        Instant::now()
    }
}

/// A process of the control plane.
pub struct Control {
    runtime: Runtime,
    /// When it was started, in simulated milliseconds.
    pub started: u64,
    begun: Instant,
    process: Arc<Process>,
    outbox: Arc<Mutex<Outbox>>,
    router: Router,
    /// Its state.
    pub cluster: Arc<Cluster>,
    clock: Arc<SimulatedClock>,
    starting: Option<JoinHandle<bool>>,
}

/// What a cluster is made of, whichever process runs.
pub struct Setup {
    pub seed: u64,
    pub config: ClusterConfig,
    pub secrets: Secrets,
    pub outbound: Outbound,
    pub random: Arc<SeededRandom>,
    pub disk: Arc<Disk>,
    /// How many tasks there may be; `None` where no history has so many.
    pub task_limits: Option<TaskLimits>,
}

impl Control {
    /// Starts a process at this moment. `wall` is added to the time of day. `None` if it dies at once.
    pub fn start(setup: &Setup, now: u64, wall: i64) -> Option<Self> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let process = Process::new(setup.disk.clone());
        let outbox = Arc::<Mutex<Outbox>>::default();
        let (cluster, begun, clock) = runtime.block_on(async {
            let begun = Instant::now();
            let wall = AtomicI64::new(START + wall + Nanos::try_from(now).unwrap() * 1_000_000);
            let clock = Arc::new(SimulatedClock { begun, wall });
            let transport = Arc::new(SimulatedTransport { outbox: outbox.clone(), process: process.clone() });
            let seams = Seams {
                transport,
                ledger: Ledger::on(process.clone()),
                clock: clock.clone(),
                random: setup.random.clone(),
            };
            let loading = serve::load(&seams, &setup.config);
            let loaded = tokio::time::timeout(Duration::from_millis(1), loading).await.ok()?.ok()?;
            let write_timeout = setup.config.limits.write_timeout_ms;
            let options = Options {
                place: Some("the disk".into()),
                task_limits: setup.task_limits.unwrap_or_default(),
                read_key: loaded.read_key,
                user_master_key: true,
                commit_timeout: Duration::from_millis(write_timeout + 5_000),
                callout_timeout: Duration::from_millis(write_timeout),
                outbound: setup.outbound.clone(),
            };
            let publisher = publisher(&setup.secrets, setup.secrets.key_text(loaded.read_key));
            let cluster = Cluster::new(
                options,
                seams,
                setup.config.clone(),
                setup.secrets.clone(),
                publisher,
                loaded.cluster_state,
                loaded.gateways,
            );
            Some((Arc::new(cluster), begun, clock))
        })?;
        let router = api::router(cluster.clone());
        let starting = cluster.clone();
        let starting = runtime.spawn(async move { serve::start(starting).await.is_ok() });
        Some(Self {
            runtime,
            started: now,
            begun,
            process,
            outbox,
            router,
            cluster,
            clock,
            starting: Some(starting),
        })
    }

    /// Whether the process has died: at a write to its ledger, or since it could not start.
    pub fn is_dead(&mut self) -> bool {
        if let Some(starting) = self.starting.take_if(|starting| starting.is_finished()) {
            let started = self.runtime.block_on(starting);
            return !started.unwrap_or(false) || self.process.is_dead();
        }
        self.process.is_dead() || self.cluster.instance.is_stopped()
    }

    /// Moves the time of day.
    pub fn set_wall(&self, by: i64) {
        self.clock.wall.fetch_add(by, Ordering::Relaxed);
    }

    /// Lets it run until this moment, or until something comes out of it. Returns the moment that has come, and what has come out.
    pub fn run_until(&mut self, until: u64) -> (u64, Vec<Output>) {
        let (begun, outbox) = (self.begun, self.outbox.clone());
        let deadline = begun + Duration::from_millis(until - self.started);
        let passed = self.runtime.block_on(async {
            let sleep = tokio::time::sleep_until(deadline);
            tokio::pin!(sleep);
            std::future::poll_fn(|context| {
                let mut outbox = outbox.lock().unwrap();
                if !outbox.outputs.is_empty() {
                    return Poll::Ready(());
                }
                outbox.waker = Some(context.waker().clone());
                drop(outbox);
                sleep.as_mut().poll(context)
            })
            .await;
            begun.elapsed()
        });
        let now = self.started + u64::try_from(passed.as_millis()).unwrap();
        (now, std::mem::take(&mut self.outbox.lock().unwrap().outputs))
    }

    /// It was stopped until this moment: to its timers, all of the time passes at once.
    pub fn skip_to(&mut self, now: u64) {
        let deadline = self.begun + Duration::from_millis(now - self.started);
        self.runtime.block_on(async {
            let left = deadline.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                tokio::time::advance(left).await;
            }
        });
    }

    /// A request comes in.
    pub fn request(&self, number: u64, request: ControlRequest) {
        let mut head = Request::builder().method(request.method.as_str()).uri(request.path.as_str());
        for (name, value) in &request.headers {
            head = head.header(name.as_str(), value.as_str());
        }
        let request = head.body(Body::from(Bytes::from(request.body))).unwrap();
        let (router, outbox) = (self.router.clone(), self.outbox.clone());
        self.runtime.spawn(async move {
            let response = router.oneshot(request).await.unwrap();
            let status = response.status().as_u16();
            let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap_or_default();
            outbox.lock().unwrap().push(Output::Reply(number, ControlReply { status, body: body.to_vec() }));
        });
    }

    /// The topology that it published last.
    pub fn published(&self) -> Option<Arc<Snapshot>> {
        self.cluster.publisher.snapshots.borrow().clone()
    }
}

fn publisher(secrets: &Secrets, internal_key: String) -> Publisher {
    Publisher {
        folder: None,
        wasm: "/filter.wasm".into(),
        control: "control:7799".into(),
        control_cluster: CONTROL_CLUSTER.into(),
        tls: NodeTls::default().upstream(),
        control_tls: None,
        secret: secrets.gateway_secret.clone(),
        read_key: None,
        internal_key,
        snapshots: tokio::sync::watch::Sender::default(),
        subscribers: Subscribers::default(),
    }
}
