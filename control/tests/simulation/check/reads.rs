//! What clients have read, against what they had been told.

use super::{Truth, untagged};
use crate::{
    client::Seen,
    model::{Expected, Model},
    plan::Action,
    world::World,
};
use serde_json::{Value, json};

impl Truth {
    /// Nobody has read something older than what was acknowledged before.
    pub(super) fn judge_reads(&self, world: &mut World) {
        let mut wrong = Vec::new();
        for read in &world.clients.reads {
            let is_told = |(status, at): &(String, u64)| status == "succeeded" && *at < read.sent_at;
            let is_acknowledged = |seen: &Seen| seen.end.as_ref().is_some_and(is_told);
            let known =
                world.clients.seen.values().filter(|seen| is_acknowledged(seen)).filter_map(|seen| seen.uid);
            let known = known.filter(|uid| {
                self.steps.get(uid).is_some_and(|(_, action)| concerns(action, &read.index, read.id))
            });
            let Some(newest) = known.max() else { continue };
            let is_seen = |model: &Model| {
                let expected = model.indexes.get(&read.index).and_then(|index| index.documents.get(&read.id));
                let expected: Expected = expected.cloned().unwrap_or_default();
                let document = read.document.as_ref().and_then(Value::as_object).map(untagged);
                expected.is_open || document == expected.content
            };
            if !self.states.range(newest..).any(|(_, model)| is_seen(model)) {
                wrong.push(format!(
                    "4: step {} read document {} of {} as {} after task {newest} had succeeded",
                    read.step,
                    read.id,
                    read.index,
                    json!(read.document)
                ));
            }
        }
        world.violations.extend(wrong);
    }
}

/// Whether an action may change a document of an index: writes to different shards have no order.
fn concerns(action: &Action, of: &str, id: u64) -> bool {
    let is_about = match action {
        Action::Create { .. } | Action::Settings { .. } | Action::Read { .. } => false,
        Action::Unauthorized { .. } => false,
        Action::Add { ids, .. } | Action::AddWithKey { ids, .. } | Action::Delete { ids, .. } => {
            ids.contains(&id)
        }
        _ => true,
    };
    is_about && action.indexes().contains(&of)
}
