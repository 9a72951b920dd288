//! Minimum cost flow: successive shortest paths.
//!
//! Source: Ahuja, Magnanti and Orlin, *Network Flows* (1993), section 9.7.

use std::collections::VecDeque;

/// A network with a capacity and a cost for each edge, and no cycle of negative cost.
#[derive(Default)]
pub(super) struct Network {
    /// An edge and the one back are side by side.
    edges: Vec<Edge>,
    /// For each vertex, the edges that leave it.
    leaving: Vec<Vec<usize>>,
}

struct Edge {
    to: usize,
    capacity: u32,
    cost: i64,
}

impl Network {
    pub fn new(vertices: usize) -> Self {
        Self { edges: Vec::new(), leaving: vec![Vec::new(); vertices] }
    }

    /// Adds an edge, and returns its number.
    pub fn edge(&mut self, from: usize, to: usize, capacity: u32, cost: i64) -> usize {
        let number = self.edges.len();
        for (from, to, capacity, cost) in [(from, to, capacity, cost), (to, from, 0, -cost)] {
            if let Some(leaving) = self.leaving.get_mut(from) {
                leaving.push(self.edges.len());
            }
            self.edges.push(Edge { to, capacity, cost });
        }
        number
    }

    /// Sends as much as can be sent from one vertex to another, as cheaply as it can be.
    pub fn send(&mut self, from: usize, to: usize) {
        while let Some(path) = self.cheapest(from, to) {
            let capacities = path.iter().filter_map(|edge| self.edges.get(*edge)).map(|edge| edge.capacity);
            let Some(sent) = capacities.min() else { return };
            for edge in path {
                if let Some(forth) = self.edges.get_mut(edge) {
                    forth.capacity -= sent;
                }
                if let Some(back) = self.edges.get_mut(edge ^ 1) {
                    back.capacity += sent;
                }
            }
        }
    }

    /// What an edge carries.
    pub fn sent(&self, edge: usize) -> u32 {
        self.edges.get(edge ^ 1).map_or(0, |back| back.capacity)
    }

    /// The cheapest path with room, as edges from its end to its start.
    fn cheapest(&self, from: usize, to: usize) -> Option<Vec<usize>> {
        let mut costs: Vec<Option<(i64, usize)>> = vec![None; self.leaving.len()];
        let mut waits = vec![false; self.leaving.len()];
        let mut queue = VecDeque::from([from]);
        while let Some(vertex) = queue.pop_front() {
            if let Some(waits) = waits.get_mut(vertex) {
                *waits = false;
            }
            let cost = costs.get(vertex).copied().flatten().map_or(0, |(cost, _)| cost);
            for number in self.leaving.get(vertex).into_iter().flatten() {
                let Some(edge) = self.edges.get(*number).filter(|edge| edge.capacity > 0 && edge.to != from)
                else {
                    continue;
                };
                let (Some(known), Some(waits)) = (costs.get_mut(edge.to), waits.get_mut(edge.to)) else {
                    continue;
                };
                if known.is_none_or(|(known, _)| cost + edge.cost < known) {
                    *known = Some((cost + edge.cost, *number));
                    if !std::mem::replace(waits, true) {
                        queue.push_back(edge.to);
                    }
                }
            }
        }
        let mut path = Vec::new();
        let mut vertex = to;
        while vertex != from {
            let (_, edge) = costs.get(vertex).copied().flatten()?;
            path.push(edge);
            vertex = self.edges.get(edge ^ 1)?.to;
        }
        Some(path)
    }
}
