//! Reports, and what they tell: the lease, the topologies, the nodes that have answered.

use super::{Gateway, send_to_control};
use crate::{
    node::NodeRequest,
    world::{Event, Party, World},
};
use miroir_core::{
    lease::{AfterReport, Lease, PATIENCE},
    path::ApiPath,
    protocol::{REPORT_PATH, Report},
};

impl Gateway {
    pub(super) fn tick(world: &mut World, number: usize, process: u64) {
        let (now, gateway) = (world.now, &world.gateways[number]);
        let Some(topology) = gateway.topology.clone().filter(|_| gateway.is_up && gateway.process == process)
        else {
            return;
        };
        if now < gateway.stopped_until {
            let left = gateway.stopped_until - now;
            world.after(left, move |world| Self::tick(world, number, process));
            return;
        }
        Self::ask_nodes(world, number);
        Self::report(world, number, None);
        let period = u64::try_from(Lease::period(&topology).as_millis()).unwrap();
        world.after(period, move |world| Self::tick(world, number, process));
    }

    /// Asks the nodes that have not answered yet.
    pub(super) fn ask_nodes(world: &mut World, number: usize) {
        let gateway = &world.gateways[number];
        let process = gateway.process;
        for node in gateway.unreached() {
            let request = NodeRequest {
                method: "GET".into(),
                path: ApiPath::from("/health"),
                authorization: None,
                body: Vec::new(),
            };
            let name = node.clone();
            world.send_to_node(
                Party::Gateway(number),
                &node,
                request,
                Box::new(move |world, answer| {
                    let gateway = &mut world.gateways[number];
                    if gateway.process == process
                        && answer.is_ok_and(|(status, _)| status == 200)
                        && gateway.reached.insert(name)
                        && gateway.unreached().is_empty()
                    {
                        Self::report(world, number, None);
                    }
                }),
            );
        }
    }

    fn unreached(&self) -> Vec<String> {
        let nodes = self.topology.iter().flat_map(|topology| &topology.config().nodes);
        nodes.map(|node| node.name.to_string()).filter(|name| !self.reached.contains(name)).collect()
    }

    /// Sends a report. `then` happens once it has been answered, or has not.
    pub(super) fn report(world: &mut World, number: usize, then: Option<Event>) {
        let now = Self::now(world);
        let gateway = &mut world.gateways[number];
        let Some(topology) = gateway.topology.clone() else { return };
        let waits = then.is_some();
        let told = Report {
            vm: gateway.vm.clone(),
            gateway: format!("g{number}"),
            unreached: gateway.unreached().into_iter().map(Into::into).collect(),
            waits,
            ..Report::default()
        };
        let body = gateway.lease.report(&topology, told).to_json();
        gateway.next_report += 1;
        let (token, process) = (gateway.next_report, gateway.process);
        gateway.lease.sent(token, now);
        let request = send_to_control(&topology, "POST", REPORT_PATH, body);
        let patience = u64::try_from(PATIENCE.as_millis()).unwrap();
        Self::ask_control(
            world,
            number,
            process,
            request,
            patience,
            Box::new(move |world, outcome| {
                let now = Self::now(world);
                let heard = world.gateways[number].lease.digest(token, outcome, now);
                match then {
                    Some(then) => then(world),
                    None if heard == Some(AfterReport::Again) => Self::report(world, number, None),
                    None => {}
                }
            }),
        );
    }
}
