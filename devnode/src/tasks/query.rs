//! The query strings that select tasks: those of `GET /tasks`, `POST /tasks/cancel` and `DELETE /tasks`.

use deserr::Deserr;
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, Duration, OffsetDateTime, Time};

use super::{Kind, Status, Task};
use crate::error::marker::{
    InvalidBatchUids, InvalidIndexUid, InvalidTaskAfterEnqueuedAt, InvalidTaskAfterFinishedAt,
    InvalidTaskAfterStartedAt, InvalidTaskBeforeEnqueuedAt, InvalidTaskBeforeFinishedAt,
    InvalidTaskBeforeStartedAt, InvalidTaskCanceledBy, InvalidTaskFrom, InvalidTaskLimit, InvalidTaskReverse,
    InvalidTaskStatuses, InvalidTaskTypes, InvalidTaskUids,
};
use crate::uid::IndexUid;
use crate::validate::{FromParam, InvalidQuery, Param, StarList, Unparsable};

/// A page of tasks.
#[derive(Debug, Deserr)]
#[deserr(error = InvalidQuery, rename_all = camelCase, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Page {
    #[deserr(default = Param(20), error = InvalidQuery<InvalidTaskLimit>)]
    pub limit: Param<u32>,
    #[deserr(default, error = InvalidQuery<InvalidTaskFrom>)]
    pub from: Option<Param<u32>>,
    #[deserr(default, error = InvalidQuery<InvalidTaskReverse>)]
    pub reverse: Option<Param<bool>>,
    #[deserr(default, error = InvalidQuery<InvalidBatchUids>)]
    batch_uids: StarList<u32>,
    #[deserr(default, error = InvalidQuery<InvalidTaskUids>)]
    uids: StarList<u32>,
    #[deserr(default, error = InvalidQuery<InvalidTaskCanceledBy>)]
    canceled_by: StarList<u32>,
    #[deserr(default, error = InvalidQuery<InvalidTaskTypes>)]
    types: StarList<KindName>,
    #[deserr(default, error = InvalidQuery<InvalidTaskStatuses>)]
    statuses: StarList<Status>,
    #[deserr(default, error = InvalidQuery<InvalidIndexUid>)]
    index_uids: StarList<IndexUid>,
    #[deserr(default, error = InvalidQuery<InvalidTaskAfterEnqueuedAt>)]
    after_enqueued_at: Option<Param<After>>,
    #[deserr(default, error = InvalidQuery<InvalidTaskBeforeEnqueuedAt>)]
    before_enqueued_at: Option<Param<Before>>,
    #[deserr(default, error = InvalidQuery<InvalidTaskAfterStartedAt>)]
    after_started_at: Option<Param<After>>,
    #[deserr(default, error = InvalidQuery<InvalidTaskBeforeStartedAt>)]
    before_started_at: Option<Param<Before>>,
    #[deserr(default, error = InvalidQuery<InvalidTaskAfterFinishedAt>)]
    after_finished_at: Option<Param<After>>,
    #[deserr(default, error = InvalidQuery<InvalidTaskBeforeFinishedAt>)]
    before_finished_at: Option<Param<Before>>,
}

/// Tasks to cancel or to delete.
#[derive(Debug, Deserr)]
#[deserr(error = InvalidQuery, rename_all = camelCase, deny_unknown_fields)]
pub struct Selection {
    #[deserr(default, error = InvalidQuery<InvalidTaskUids>)]
    uids: Option<StarList<u32>>,
    #[deserr(default, error = InvalidQuery<InvalidBatchUids>)]
    batch_uids: Option<StarList<u32>>,
    #[deserr(default, error = InvalidQuery<InvalidTaskCanceledBy>)]
    canceled_by: Option<StarList<u32>>,
    #[deserr(default, error = InvalidQuery<InvalidTaskTypes>)]
    types: Option<StarList<KindName>>,
    #[deserr(default, error = InvalidQuery<InvalidTaskStatuses>)]
    statuses: Option<StarList<Status>>,
    #[deserr(default, error = InvalidQuery<InvalidIndexUid>)]
    index_uids: Option<StarList<IndexUid>>,
    #[deserr(default, error = InvalidQuery<InvalidTaskAfterEnqueuedAt>)]
    after_enqueued_at: Option<Param<After>>,
    #[deserr(default, error = InvalidQuery<InvalidTaskBeforeEnqueuedAt>)]
    before_enqueued_at: Option<Param<Before>>,
    #[deserr(default, error = InvalidQuery<InvalidTaskAfterStartedAt>)]
    after_started_at: Option<Param<After>>,
    #[deserr(default, error = InvalidQuery<InvalidTaskBeforeStartedAt>)]
    before_started_at: Option<Param<Before>>,
    #[deserr(default, error = InvalidQuery<InvalidTaskAfterFinishedAt>)]
    after_finished_at: Option<Param<After>>,
    #[deserr(default, error = InvalidQuery<InvalidTaskBeforeFinishedAt>)]
    before_finished_at: Option<Param<Before>>,
}

impl From<Selection> for Page {
    fn from(selection: Selection) -> Self {
        Self {
            limit: Param(u32::MAX),
            from: None,
            reverse: None,
            batch_uids: selection.batch_uids.unwrap_or_default(),
            uids: selection.uids.unwrap_or_default(),
            canceled_by: selection.canceled_by.unwrap_or_default(),
            types: selection.types.unwrap_or_default(),
            statuses: selection.statuses.unwrap_or_default(),
            index_uids: selection.index_uids.unwrap_or_default(),
            after_enqueued_at: selection.after_enqueued_at,
            before_enqueued_at: selection.before_enqueued_at,
            after_started_at: selection.after_started_at,
            before_started_at: selection.before_started_at,
            after_finished_at: selection.after_finished_at,
            before_finished_at: selection.before_finished_at,
        }
    }
}

impl Page {
    /// Whether the query selects only tasks of some indexes.
    pub fn names_indexes(&self) -> bool {
        self.index_uids.0.is_some()
    }

    /// Whether the query selects the task, apart from `limit` and `from`.
    pub fn matches(&self, task: &Task) -> bool {
        fn among<T: PartialEq>(list: &StarList<T>, value: Option<&T>) -> bool {
            list.0.as_ref().is_none_or(|items| value.is_some_and(|value| items.contains(value)))
        }
        let indexes = task.work.indexes();
        let in_index = self
            .index_uids
            .0
            .as_ref()
            .is_none_or(|uids| uids.iter().any(|uid| indexes.contains(&uid.as_str())));
        let dated = [
            (&self.after_enqueued_at, &self.before_enqueued_at, Some(task.enqueued_at)),
            (&self.after_started_at, &self.before_started_at, task.started_at),
            (&self.after_finished_at, &self.before_finished_at, task.finished_at),
        ]
        .into_iter()
        .all(|(after, before, date)| {
            after
                .as_ref()
                .and_then(|after| after.0.0)
                .is_none_or(|after| date.is_some_and(|date| date > after))
                && before
                    .as_ref()
                    .and_then(|end| end.0.0)
                    .is_none_or(|end| date.is_some_and(|date| date < end))
        });
        among(&self.uids, Some(&task.uid))
            && among(&self.batch_uids, task.batch_uid.as_ref())
            && among(&self.canceled_by, task.canceled_by.as_ref())
            && among(&self.types, Some(&KindName(Some(task.work.kind()))))
            && among(&self.statuses, Some(&task.status))
            && in_index
            && dated
    }
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

impl FromParam for Status {
    fn from_param(text: &str) -> Result<Self, Unparsable> {
        const NAMES: [&str; 5] = ["enqueued", "processing", "succeeded", "failed", "canceled"];
        let known = NAMES.iter().find(|name| name.eq_ignore_ascii_case(text));
        known.and_then(|name| serde_json::from_value(Value::from(*name)).ok()).ok_or_else(|| {
            Unparsable(format!(
                "`{text}` is not a valid task status. Available statuses are {}.",
                quoted(&NAMES)
            ))
        })
    }
}

/// A type of task, including those that this node never creates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct KindName(Option<Kind>);

impl FromParam for KindName {
    fn from_param(text: &str) -> Result<Self, Unparsable> {
        const NAMES: [&str; 18] = [
            "documentAdditionOrUpdate",
            "documentEdition",
            "documentDeletion",
            "settingsUpdate",
            "indexCreation",
            "indexDeletion",
            "indexUpdate",
            "indexSwap",
            "taskCancelation",
            "taskDeletion",
            "dumpCreation",
            "snapshotCreation",
            "export",
            "upgradeDatabase",
            "indexCompaction",
            "networkTopologyChange",
            "dsrUpdate",
            "dsrClear",
        ];
        match NAMES.iter().find(|name| name.eq_ignore_ascii_case(text)) {
            Some(name) => Ok(Self(serde_json::from_value(Value::from(*name)).ok())),
            None => Err(Unparsable(format!(
                "`{text}` is not a valid task type. Available types are {}.",
                quoted(&NAMES)
            ))),
        }
    }
}

/// Selects dates after this one. If it is a day without a time, the dates after the end of that day.
#[derive(Debug, Clone, Copy)]
struct After(Option<OffsetDateTime>);
/// Selects dates before this one.
#[derive(Debug, Clone, Copy)]
struct Before(Option<OffsetDateTime>);

fn date(text: &str, days: i64) -> Result<Option<OffsetDateTime>, Unparsable> {
    if text == "*" {
        return Ok(None);
    }
    let day = format_description!("[year repr:full base:calendar]-[month repr:numerical]-[day]");
    OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| Date::parse(text, day).map(|date| date.with_time(Time::MIDNIGHT).assume_utc() + Duration::days(days)))
        .map(Some)
        .map_err(|_| {
            Unparsable(format!(
                "`{text}` is an invalid date-time. It should follow the YYYY-MM-DD or RFC 3339 date-time format."
            ))
        })
}

impl FromParam for After {
    fn from_param(text: &str) -> Result<Self, Unparsable> {
        date(text, 1).map(Self)
    }
}

impl FromParam for Before {
    fn from_param(text: &str) -> Result<Self, Unparsable> {
        date(text, 0).map(Self)
    }
}
