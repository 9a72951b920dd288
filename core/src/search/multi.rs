//! `POST /multi-search`: many queries for one callout a node.

use super::{federated::Federated, query::IndexQuery, request::SearchRequest};
use crate::{
    http::Reply,
    json::RawObject,
    read::{Gathered, NodeRequest, Part, Portion, Question},
    topology::Topology,
};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Several searches, each with an answer of its own.
#[derive(Debug)]
pub struct MultiSearch(Vec<IndexQuery>);

impl MultiSearch {
    /// What a body asks; `None` where a node would refuse it.
    #[must_use]
    pub fn of(topology: &Topology, body: &[u8]) -> Option<Box<dyn Question>> {
        let RawObject(members) = serde_json::from_slice(body).ok()?;
        let mut queries: Option<Vec<BTreeMap<String, Box<RawValue>>>> = None;
        let mut federation = None;
        for (name, value) in members {
            match name.as_ref() {
                "queries" => queries = Some(serde_json::from_str(value.get()).ok()?),
                "federation" => federation = Some(value).filter(|value| value.get() != "null"),
                _ => return None,
            }
        }
        let queries = queries?
            .into_iter()
            .map(|parameters| {
                let index: String = serde_json::from_str(parameters.get("indexUid")?.get()).ok()?;
                Some((index, SearchRequest::new(parameters).ok()?))
            })
            .collect::<Option<Vec<_>>>()?;
        if let Some(federation) = federation {
            return Federated::of(topology, federation, queries);
        }
        let queries = queries.into_iter().map(|(index, request)| {
            let config = topology.index(&index);
            IndexQuery::new(index, config, request)
        });
        Some(Box::new(Self(queries.collect())))
    }
}

impl Question for MultiSearch {
    fn seeds(&self, topology: &Topology) -> Vec<u64> {
        self.0.iter().map(|query| query.seed(topology.version())).collect()
    }

    fn ask(&self, portions: &[Portion]) -> NodeRequest {
        let mut body = b"{\"queries\":[".to_vec();
        for (position, Portion { unit, shards }) in portions.iter().enumerate() {
            if position > 0 {
                body.push(b',');
            }
            body.extend(self.0.get(*unit).map(|query| query.for_shards(shards)).unwrap_or_default());
        }
        body.extend_from_slice(b"]}");
        NodeRequest { path: "/multi-search".to_owned(), body }
    }

    fn simpler(&self) -> Option<Box<dyn Question>> {
        self.0.iter().find_map(IndexQuery::simpler)?;
        let queries = self.0.iter().map(|query| query.simpler().unwrap_or_else(|| query.clone()));
        Some(Box::new(Self(queries.collect())))
    }

    fn gather(&self, _: &Topology, parts: &[Part<'_>]) -> Gathered {
        let mut answers: Vec<Vec<(usize, &[u8])>> = vec![Vec::new(); self.0.len()];
        for (position, part) in parts.iter().enumerate() {
            let results = serde_json::from_slice::<RawObject<'_>>(part.body).ok();
            let results: Option<Vec<&RawValue>> = results.and_then(|answer| answer.read("results"));
            let Some(results) = results.filter(|results| results.len() == part.portions.len()) else {
                return Gathered::Broken(position);
            };
            for (portion, result) in part.portions.iter().zip(results) {
                if let Some(answers) = answers.get_mut(portion.unit) {
                    answers.push((position, result.get().as_bytes()));
                }
            }
        }
        let mut body = b"{\"results\":[".to_vec();
        for (unit, (query, answers)) in self.0.iter().zip(&answers).enumerate() {
            if unit > 0 {
                body.push(b',');
            }
            let bodies: Vec<&[u8]> = answers.iter().map(|(_, body)| *body).collect();
            match query.merge(&bodies) {
                Ok(result) => body.extend(result),
                Err(broken) => {
                    return Gathered::Broken(answers.get(broken).map_or(0, |(position, _)| *position));
                }
            }
        }
        body.extend_from_slice(b"]}");
        Gathered::Reply(Reply::json(200, body))
    }
}
