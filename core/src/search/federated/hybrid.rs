//! Hybrid queries of a federated search: first decides over all nodes whether the keyword hits are good enough.

use super::Federated;
use crate::{
    scatter_query::{Gathered, NodeRequest, Part, QuerySlice, ScatterQuery, owner, shards_of},
    search::query::{
        IndexQuery,
        results::{Answers, multi_search, read_results},
    },
    topology::Topology,
};

/// Asks for the scores of the keyword hits, then sends the federated search itself.
#[derive(Debug)]
pub struct Decision {
    federated: Federated,
    /// The undecided queries, as keyword queries, with their positions.
    open: Vec<(usize, IndexQuery)>,
}

impl Decision {
    /// The federated search, with this decision before it if a query needs one.
    pub fn of(federated: Federated) -> Box<dyn ScatterQuery> {
        let hits = federated.all_hits();
        let open: Vec<(usize, IndexQuery)> = federated
            .queries()
            .iter()
            .enumerate()
            .filter(|(_, query)| hits > 0 && query.asks_keywords())
            .map(|(position, query)| (position, query.keyword_scores(hits)))
            .collect();
        if open.is_empty() { Box::new(federated.in_steps()) } else { Box::new(Self { federated, open }) }
    }
}

impl ScatterQuery for Decision {
    fn seeds(&self) -> Vec<u64> {
        self.federated.seeds()
    }

    fn indexes(&self, unit: usize) -> Vec<&str> {
        self.federated.indexes(unit)
    }

    fn hits(&self) -> u64 {
        self.federated.all_hits()
    }

    fn ask(&self, slices: &[QuerySlice]) -> NodeRequest {
        let shards = shards_of(slices);
        let queries = self.open.iter().flat_map(|(_, query)| query.for_shards(&shards));
        multi_search(&queries.collect::<Vec<_>>())
    }

    fn gather(self: Box<Self>, _: &Topology, parts: Vec<Part>) -> Gathered {
        match self.decide(&parts) {
            Ok(decisions) => {
                let mut decided = self.federated;
                for (position, least) in decisions {
                    match least {
                        None => decided.by_keywords(position),
                        Some(least) => decided.not_by_keywords(least),
                    }
                }
                Gathered::Next(Box::new(decided.in_steps()), owner(&parts))
            }
            Err(position) => Gathered::broken(self, parts, position),
        }
    }
}

impl Decision {
    /// For each open query, by its position, how many hits nodes have to be asked for at least to find its keyword hits not good enough;
    /// `None` where they are. The error is the position of a part that cannot be read.
    fn decide(&self, parts: &[Part]) -> Result<Vec<(usize, Option<u64>)>, usize> {
        let mut answers: Vec<Answers<'_>> = self.open.iter().map(|_| Answers::default()).collect();
        for (position, part) in parts.iter().enumerate() {
            let mut results = read_results(&part.body).ok_or(position)?;
            results.reverse();
            for ((_, query), answers) in self.open.iter().zip(&mut answers) {
                if !answers.take(query, &[], position, &mut results) {
                    return Err(position);
                }
            }
        }
        let decisions = self.open.iter().zip(&answers).map(|((position, query), answers)| {
            let least = query.keywords_not_good_enough(&answers.own);
            least.map(|least| (*position, least)).map_err(|broken| answers.position(broken))
        });
        decisions.collect()
    }
}
