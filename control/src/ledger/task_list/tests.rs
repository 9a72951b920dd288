use super::*;
use crate::ledger::{
    Ledger,
    tasks::{Ending, NewTask, finish, insert, set_canceled_by},
};
use serde_json::json;

fn addition(index: &str) -> NewTask {
    NewTask {
        index: Some(index.into()),
        kind: TaskKind::DocumentAdditionOrUpdate,
        details: Some(json!({"receivedDocuments": 1, "indexedDocuments": null})),
        custom_metadata: None,
    }
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    for index in ["a", "b", "abc", "a"] {
        ledger.call(move |c| insert(c, &addition(index), 1)).await.unwrap();
    }
    let uids = async |query: Query| {
        let (tasks, total) = ledger.call(move |c| list(c, &query)).await.unwrap();
        (tasks.iter().map(|task| task.uid).collect::<Vec<_>>(), total)
    };
    let all = Query { limit: 10, ..Query::default() };
    assert_eq!(uids(all.clone()).await, (vec![3, 2, 1, 0], 4));
    assert_eq!(uids(Query { limit: 2, from: Some(2), ..all.clone() }).await, (vec![2, 1], 4));
    assert_eq!(uids(Query { reverse: true, from: Some(2), ..all.clone() }).await, (vec![2, 3], 4));
    assert_eq!(uids(Query { indexes: Some(vec!["a".into()]), ..all.clone() }).await, (vec![3, 0], 2));
    assert_eq!(uids(Query { visible: Some(vec!["ab*".into()]), ..all.clone() }).await, (vec![2], 4));
    assert_eq!(uids(Query { uids: Some(vec![]), ..all }).await, (vec![], 0));
}

#[tokio::test]
async fn swaps_change_names_in_the_tasks_before_them() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    let swap = |left: &str, right: &str| NewTask {
        index: None,
        kind: TaskKind::IndexSwap,
        details: Some(json!({"swaps": [{"indexes": [left, right], "rename": false}]})),
        custom_metadata: None,
    };
    for task in [addition("a"), addition("b"), addition("c"), swap("a", "b"), swap("a", "b"), addition("a")] {
        ledger.call(move |c| insert(c, &task, 1)).await.unwrap();
    }
    ledger.call(|c| swap_names(c, 4, "a", "b")).await.unwrap();
    let list = async |query: Query| ledger.call(move |c| list(c, &query)).await.unwrap();
    let all = Query { limit: 10, reverse: true, ..Query::default() };
    let (tasks, _) = list(all.clone()).await;
    let names: Vec<_> = tasks.iter().map(|task| task.index.as_deref()).collect();
    assert_eq!(names, [Some("b"), Some("a"), Some("c"), None, None, Some("a")]);
    let swapped = |task: &Task| task.details.as_ref().unwrap()["swaps"][0]["indexes"].clone();
    assert_eq!(tasks[3..5].iter().map(swapped).collect::<Vec<_>>(), [json!(["b", "a"]), json!(["a", "b"])]);
    // Nodes count swaps but do not list them for an index, and they count tasks that a key may not see.
    let (tasks, total) = list(Query { indexes: Some(vec!["a".into()]), ..all.clone() }).await;
    assert_eq!((tasks.len(), total), (2, 4));
    let (tasks, total) = list(Query { visible: Some(vec!["c".into()]), ..all }).await;
    assert_eq!((tasks.len(), total), (1, 6));
}

/// Numbers in no order, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn some<T: Clone>(&mut self, of: &[T]) -> Option<Vec<T>> {
        let count = self.below(4);
        (count > 0).then(|| (1..count).map(|_| of[self.below(of.len())].clone()).collect())
    }
}

const INDEXES: [&str; 5] = ["a", "ab", "abc", "b", "none"];
const KINDS: [TaskKind; 4] = [
    TaskKind::DocumentAdditionOrUpdate,
    TaskKind::SettingsUpdate,
    TaskKind::IndexSwap,
    TaskKind::TaskDeletion,
];

/// What the page and the total of a query are, by looking at each task.
fn naive(tasks: &[Task], query: &Query) -> (Vec<u32>, u64) {
    fn among<T: PartialEq>(list: &Option<Vec<T>>, value: Option<&T>) -> bool {
        list.as_ref().is_none_or(|list| value.is_some_and(|value| list.contains(value)))
    }
    let is_rest = |task: &&Task| {
        let dates = query.dates.iter().all(|(moment, after, date)| {
            let own = match moment {
                Moment::Enqueued => Some(task.enqueued_at),
                Moment::Started => task.started_at,
                Moment::Finished => task.finished_at,
            };
            own.is_some_and(|own| if *after { own > *date } else { own < *date })
        });
        dates
            && among(&query.uids, Some(&task.uid))
            && among(&query.canceled_by, task.canceled_by.as_ref())
            && among(&query.statuses, Some(&task.status))
            && among(&query.types, Some(&task.kind))
    };
    let is_of_index = |task: &&Task| among(&query.indexes, task.index.as_ref());
    let swaps = |task: &&Task| {
        let details = task.details.as_ref().map(Value::to_string).unwrap_or_default();
        query.indexes.as_ref().is_some_and(|indexes| {
            task.kind == TaskKind::IndexSwap
                && indexes.iter().any(|index| details.contains(&format!("\"{index}\"")))
        })
    };
    let total = tasks.iter().filter(is_rest).filter(|task| is_of_index(task) || swaps(task)).count();
    let is_visible = |task: &&Task| {
        query.visible.as_ref().is_none_or(|patterns| {
            let index = task.index.as_deref();
            index.is_some_and(|index| patterns.iter().any(|pattern| matches(pattern, index)))
        })
    };
    let is_on_page = |task: &&Task| {
        query.from.is_none_or(|from| if query.reverse { task.uid >= from } else { task.uid <= from })
    };
    let listed = tasks.iter().filter(is_rest).filter(is_of_index).filter(is_visible).filter(is_on_page);
    let mut listed: Vec<u32> = listed.map(|task| task.uid).collect();
    if !query.reverse {
        listed.reverse();
    }
    listed.truncate(query.limit as usize);
    (listed, total as u64)
}

#[tokio::test]
async fn every_list_is_as_if_each_task_were_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    let mut numbers = Numbers(7);
    let tasks = ledger
        .call(|connection| {
            let mut numbers = Numbers(1);
            for number in 0..300 {
                let kind = KINDS[numbers.below(KINDS.len())];
                let name = |numbers: &mut Numbers| INDEXES[numbers.below(4)];
                let details = json!({"swaps": [{"indexes": [name(&mut numbers), name(&mut numbers)]}]});
                let new = NewTask {
                    index: (kind.is_about_documents() || kind == TaskKind::SettingsUpdate)
                        .then(|| name(&mut numbers).to_owned()),
                    kind,
                    details: (kind == TaskKind::IndexSwap).then_some(details),
                    custom_metadata: None,
                };
                let task = insert(connection, &new, number)?;
                let status = TaskStatus::ALL[numbers.below(TaskStatus::ALL.len())];
                if status.is_over() {
                    let started_at = (numbers.below(3) > 0).then_some(number + 1);
                    let finished_at = i64::try_from(numbers.below(300)).unwrap_or(0);
                    let ending = Ending { status, details: None, error: None, started_at, finished_at };
                    finish(connection, task.uid, &ending)?;
                }
                if numbers.below(10) == 0 {
                    set_canceled_by(connection, task.uid, 5)?;
                }
            }
            (0..300).map(|uid| Ok(tasks::get(connection, uid)?.unwrap())).collect::<Result<Vec<_>>>()
        })
        .await
        .unwrap();
    let indexes = INDEXES.map(str::to_owned);
    let patterns = ["a*", "ab*", "b", "x*"].map(str::to_owned);
    for _ in 0..3_000 {
        let sometimes = numbers.below(5) == 0;
        let mut dates = Vec::new();
        for moment in [Moment::Enqueued, Moment::Started, Moment::Finished] {
            if numbers.below(4) == 0 {
                dates.push((moment, numbers.below(2) == 0, i64::try_from(numbers.below(300)).unwrap()));
            }
        }
        let query = Query {
            limit: u32::try_from(numbers.below(30)).unwrap(),
            from: (numbers.below(2) == 0).then(|| u32::try_from(numbers.below(320)).unwrap()),
            reverse: numbers.below(2) == 0,
            uids: if sometimes { Some((0..300).filter(|_| numbers.below(4) == 0).collect()) } else { None },
            statuses: numbers.some(TaskStatus::ALL),
            types: numbers.some(&KINDS),
            indexes: numbers.some(&indexes),
            canceled_by: (numbers.below(8) == 0).then(|| vec![5, 6]),
            visible: numbers.some(&patterns),
            dates,
        };
        let expected = naive(&tasks, &query);
        let asked = query.clone();
        let (page, total) = ledger.read(move |connection| list(connection, &asked)).await.unwrap();
        let found: Vec<u32> = page.iter().map(|task| task.uid).collect();
        assert_eq!((found, total), expected, "{query:?}");
        let asked = query.clone();
        assert_eq!(
            ledger.read(move |connection| uids(connection, &asked)).await.unwrap(),
            expected.0,
            "{query:?}"
        );
    }
}

#[tokio::test]
async fn a_list_of_any_length_can_be_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    ledger.call(|c| insert(c, &addition("a"), 1)).await.unwrap();
    let many = || Some((0..100_000).collect::<Vec<u32>>());
    let indexes = (0..100_000).map(|number| format!("a{number}")).chain(["a".to_owned()]).collect();
    for query in [
        Query { uids: many(), ..Query::default() },
        Query { indexes: Some(indexes), statuses: Some(vec![TaskStatus::Enqueued]), ..Query::default() },
    ] {
        let query = Query { limit: u32::MAX, ..query };
        assert_eq!(ledger.read(move |c| list(c, &query)).await.unwrap().1, 1);
    }
    let query = Query { limit: 1, canceled_by: many(), ..Query::default() };
    assert_eq!(ledger.read(move |c| list(c, &query)).await.unwrap().1, 0);
    let deleted = ledger.call(move |c| tasks::forget_ended(c, &many().unwrap())).await.unwrap();
    assert_eq!(deleted, 0, "it has not ended");
}

/// A page must not cost more where there are more tasks: no list is sorted, and none looks at all rows for an index, a status or a type.
#[tokio::test]
async fn pages_are_read_in_the_order_of_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    let a = || Some(vec!["a".to_owned()]);
    let failed = || Some(vec![TaskStatus::Failed]);
    let settings = || Some(vec![TaskKind::SettingsUpdate]);
    for query in [
        Query { indexes: a(), ..Query::default() },
        Query { statuses: failed(), ..Query::default() },
        Query { types: settings(), ..Query::default() },
        Query { indexes: a(), statuses: failed(), ..Query::default() },
        Query { indexes: a(), types: settings(), ..Query::default() },
        Query { statuses: failed(), types: settings(), ..Query::default() },
    ] {
        let told = format!("{query:?}");
        let plans = move |connection: &Connection| {
            let plan = Plan::of(&query, query.indexes.clone());
            let (conditions, values) = plan.scans[0].conditions(&plan.rest, &[]);
            let sql = format!(
                "EXPLAIN QUERY PLAN SELECT uid FROM tasks {} WHERE {conditions} ORDER BY uid DESC LIMIT 20",
                plan.by()
            );
            let mut statement = connection.prepare(&sql)?;
            let steps = statement.query_map(params_from_iter(values), |row| row.get::<_, String>(3))?;
            Ok(steps.collect::<rusqlite::Result<Vec<_>>>()?)
        };
        let steps = ledger.read(plans).await.unwrap();
        let [step] = steps.as_slice() else { panic!("{told}: {steps:?}") };
        assert!(step.starts_with("SEARCH tasks USING COVERING INDEX"), "{told}: {step}");
    }
}
