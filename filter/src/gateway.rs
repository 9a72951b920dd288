//! The root context: holds the topology from this configuration, and the writes in progress.

use crate::{
    budget,
    callouts::outcome,
    lease::{self, AfterReport},
    metrics, random, reachability, refused_topology,
    stream::Stream,
    traces,
    writes::Writes,
};
use miroir_core::{lease::Lease, protocol::RefusedTopology, topology::Topology};
use proxy_wasm::{
    hostcalls,
    traits::{Context, HttpContext, RootContext},
    types::{BufferType, ContextType},
};
use std::{cell::RefCell, rc::Rc, sync::Arc};

thread_local! {
    /// Identifies this worker's VM to the control plane; it survives changes of the configuration.
    static VM: String = format!("{:016x}", random());

    static NAME: String = {
        let name = hostcalls::get_property(vec!["xds", "node", "id"]).ok().flatten().unwrap_or_default();
        String::from_utf8_lossy(&name).into_owned()
    };

    static ZONE: Option<String> = {
        let zone = hostcalls::get_property(vec!["xds", "node", "locality", "zone"]).ok().flatten();
        zone.and_then(|zone| String::from_utf8(zone).ok()).filter(|zone| !zone.is_empty())
    };
}

/// The id of this worker's VM, which the control plane knows it by.
pub fn vm_name() -> String {
    VM.with(Clone::clone)
}

/// The name of this Envoy, `node.id`.
pub fn gateway_name() -> String {
    NAME.with(Clone::clone)
}

/// One plugin configuration in one worker.
pub struct Gateway {
    context_id: u32,
    topology: Option<Arc<Topology>>,
    writes: Rc<RefCell<Writes>>,
}

impl Gateway {
    pub fn new(context_id: u32) -> Self {
        Self { context_id, topology: None, writes: Rc::new(RefCell::new(Writes::new(context_id))) }
    }
}

impl Context for Gateway {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body_size: usize, _: usize) {
        if let Some(heard) = lease::digest(token, headers, body_size) {
            if let (AfterReport::Again, Some(topology)) = (heard, &self.topology) {
                lease::report(topology, false);
            }
            return;
        }
        if traces::digest(token, || outcome(headers, body_size)) {
            return;
        }
        if let Some(topology) = &self.topology {
            match reachability::digest(topology, token, headers, body_size) {
                // The control plane waits for the report that all nodes have answered.
                Some(true) => drop(lease::report(topology, false)),
                Some(false) => {}
                None => self.writes.borrow_mut().digest(token, outcome(headers, body_size)),
            }
        }
    }

    /// Envoy calls this when a newer configuration is in force and the last stream of this one has gone. Writes of clients that
    /// have left may still be in progress; Envoy keeps this context and its callouts until they end.
    fn on_done(&mut self) -> bool {
        match &self.topology {
            Some(topology) => self.writes.borrow_mut().leave(topology),
            None => true,
        }
    }
}

impl RootContext for Gateway {
    /// Returning `false` makes Envoy refuse the configuration and keep the previous one.
    fn on_configure(&mut self, size: usize) -> bool {
        let configuration = hostcalls::get_buffer(BufferType::PluginConfiguration, 0, size);
        for name in ["miroir_missing_shards_total", "miroir_topologies_refused_total"] {
            metrics::announce(name);
        }
        let configuration = configuration.ok().flatten().unwrap_or_default();
        match Topology::from_json(&configuration) {
            Ok(topology) => {
                let topology = topology.in_zone(ZONE.with(Clone::clone));
                refused_topology::taken(topology.version());
                log::info!("topology {} is in force", topology.version());
                metrics::set("miroir_topology_version", &[], topology.version());
                let topology = Arc::new(topology);
                lease::register(&topology);
                reachability::ask(&topology);
                // The control plane waits for the report that the older topology is no longer used.
                lease::report(&topology, false);
                if hostcalls::set_tick_period(Lease::period(&topology)).is_err() {
                    log::error!("cannot set the tick: this worker will not report to the control plane");
                }
                self.topology = Some(topology);
            }
            Err(invalid) => {
                for error in &invalid.0 {
                    log::error!("the topology is refused: {error}");
                }
                refused_topology::note(&RefusedTopology::new(&configuration, &invalid.0));
                metrics::count("miroir_topologies_refused_total", &[], 1);
                return false;
            }
        }
        let queue = format!("miroir/{}/{}", vm_name(), self.context_id);
        self.writes.borrow_mut().open_queue(&queue)
    }

    fn on_tick(&mut self) {
        budget::expire(self.context_id);
        if let Some(topology) = &self.topology {
            reachability::ask(topology);
            lease::report(topology, false);
            traces::send(topology);
        }
    }

    fn on_queue_ready(&mut self, _: u32) {
        if let Some(topology) = &self.topology {
            self.writes.borrow_mut().start_waiting(topology);
            if traces::is_full() {
                traces::send(topology);
            }
        }
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        let topology = self.topology.clone()?;
        Some(Box::new(Stream::new(context_id, vm_name(), topology, Rc::clone(&self.writes))))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}
