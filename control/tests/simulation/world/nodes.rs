//! Messages to nodes, and what nodes do by themselves.

use super::{OnNodeReply, Party, World};
use crate::{
    control::START,
    node::{NodeRequest, NodeText},
};

impl World {
    /// Sends a request to a node.
    pub fn send_to_node(&mut self, from: Party, name: &str, request: NodeRequest, done: OnNodeReply) {
        let party = Party::Node(name.to_owned());
        let (changes, is_of_documents) = {
            let segments = request.path.segments();
            let asks = request.method == "GET" || matches!(segments.last(), Some(&("fetch" | "fields")));
            (!asks, segments.get(2) == Some(&"documents"))
        };
        if changes {
            self.note(|| {
                format!(
                    "{from:?} -> {name}: {} {} {}",
                    request.method,
                    request.path,
                    String::from_utf8_lossy(&request.body)
                )
            });
        }
        if self.is_lost(&from, &party) {
            self.lose(done);
            return;
        }
        // Late changes of a whole index are a known gap, since nodes take no mark with them; so are bodies that are late at all replicas.
        let changes = changes && is_of_documents;
        let held = self
            .network
            .held_bodies
            .iter()
            .position(|held| changes && held.from == from && held.node == name);
        let now = self.now;
        let is_alone = self.network.late.as_ref().is_none_or(|(node, until)| node == name || now > *until);
        let held = held.filter(|_| is_alone);
        let late = held.map_or(0, |held| self.network.held_bodies.remove(held).millis);
        let latency = self.latency();
        if late > 0 {
            let before =
                self.network.late.take().filter(|(node, _)| node == name).map_or(0, |(_, until)| until);
            self.network.late = Some((name.to_owned(), before.max(now + latency + late)));
        }
        let name = name.to_owned();
        self.after(latency, move |world| world.head_arrives(from, name, request, late, done));
    }

    fn head_arrives(
        &mut self,
        from: Party,
        name: String,
        request: NodeRequest,
        late: u64,
        done: OnNodeReply,
    ) {
        let Some(node) = self.nodes.get(&name).filter(|node| node.is_up) else {
            done(self, Err(true));
            return;
        };
        if self.now < node.stopped_until {
            let left = node.stopped_until - self.now;
            self.after(left, move |world| world.head_arrives(from, name, request, late, done));
            return;
        }
        let process = node.process;
        match node.head(&request) {
            Err(refusal) => self.answer_of_node(&from, &name, process, refusal, done),
            Ok(()) if late > 0 => {
                self.note(|| {
                    format!("{name} has let in {} {}, whose body is late", request.method, request.path)
                });
                self.late_bodies += 1;
                self.after(late, move |world| {
                    world.late_bodies -= 1;
                    world.body_arrives(from, name, process, request, done);
                });
            }
            Ok(()) => self.body_arrives(from, name, process, request, done),
        }
    }

    fn body_arrives(
        &mut self,
        from: Party,
        name: String,
        process: u64,
        request: NodeRequest,
        done: OnNodeReply,
    ) {
        let now = START + i64::try_from(self.now).unwrap() * 1_000_000;
        let at = self.now;
        let Some(node) = self.nodes.get_mut(&name).filter(|node| node.is_up && node.process == process)
        else {
            done(self, Err(false));
            return;
        };
        if at < node.stopped_until {
            let left = node.stopped_until - at;
            self.after(left, move |world| world.body_arrives(from, name, process, request, done));
            return;
        }
        let reply = node.answer(&request, now);
        let unknown = std::mem::take(&mut node.unknown);
        self.violations
            .extend(unknown.into_iter().map(|what| format!("the model of a node does not know {what}")));
        if reply.0 == 202 {
            self.note(|| format!("{name} has taken {} {}: {}", request.method, request.path, reply.1));
            self.kick(&name);
            self.node_takes(&name, &request);
        }
        self.answer_of_node(&from, &name, process, reply, done);
    }

    fn answer_of_node(&mut self, to: &Party, name: &str, process: u64, reply: NodeText, done: OnNodeReply) {
        if self.is_lost(&Party::Node(name.to_owned()), to) {
            self.lose(done);
            return;
        }
        let latency = self.latency();
        let name = name.to_owned();
        self.after(latency, move |world| {
            let is_same = world.nodes.get(&name).is_some_and(|node| node.process == process);
            done(world, if is_same { Ok(reply) } else { Err(false) });
        });
    }

    /// What becomes of a request that is lost, or whose answer is: the connection breaks after a while, or its sender never hears of it.
    fn lose(&mut self, done: OnNodeReply) {
        if self.rng.once_in(2) {
            let latency = self.latency();
            self.after(latency, move |world| done(world, Err(false)));
        } else {
            self.unheard.push(done);
        }
    }

    /// Has a node go on with its queue.
    pub fn kick(&mut self, name: &str) {
        let now = START + i64::try_from(self.now).unwrap() * 1_000_000;
        let pause = self.rng.between(3, 40);
        let Some(node) = self.nodes.get_mut(name) else { return };
        if node.begin_batch(now) {
            let pause = pause * node.slowness;
            let (name, process) = (name.to_owned(), node.process);
            self.after(pause, move |world| world.end_batch(name, process));
        }
    }

    fn end_batch(&mut self, name: String, process: u64) {
        let at = self.now;
        let now = START + i64::try_from(at).unwrap() * 1_000_000;
        let Some(node) = self.nodes.get_mut(&name).filter(|node| node.process == process) else { return };
        if at < node.stopped_until {
            let left = node.stopped_until - at;
            self.after(left, move |world| world.end_batch(name, process));
            return;
        }
        let batch = node.end_batch(now);
        let ended: Vec<(u32, &str)> = batch.into_iter().map(|uid| (uid, node.tasks[&uid].status)).collect();
        self.note(|| {
            let ended: Vec<String> = ended.iter().map(|(uid, status)| format!("{uid} {status}")).collect();
            format!("{name} has ended its tasks {}", ended.join(", "))
        });
        self.kick(&name);
    }
}
