use super::*;
use serde_json::json;

fn part(node: &str, shards: &[u16], state: State) -> TrackedNodeTask {
    let seen = ReportedState {
        state,
        started_at: Some(10),
        finished_at: Some(20),
        details: Some(json!({"deletedDocuments": 6})),
        error: (state == State::Failed).then(|| crate::base::error::index_not_found("x").body),
    };
    let shards = shards.iter().copied().map(Shard).collect();
    TrackedNodeTask {
        node: node.into(),
        node_task: 0,
        main: true,
        shards,
        replaced: BTreeSet::new(),
        seen,
        is_interrupted: false,
    }
}

fn over(parts: &[TrackedNodeTask]) -> Outcome {
    match judge(parts, OutcomeRule::Best, &BTreeSet::new()) {
        Verdict::Outcome(over) => *over,
        Verdict::Pending { .. } => panic!("pending"),
    }
}

#[test]
fn all_replicas_must_have_succeeded() {
    let parts = [part("a", &[0, 1], State::Succeeded), part("b", &[0, 1], State::Processing)];
    assert_eq!(judge(&parts, OutcomeRule::Best, &BTreeSet::new()), Verdict::Pending { started_at: Some(10) });
    let over = over(&[part("a", &[0, 1], State::Succeeded), part("b", &[0, 1], State::Succeeded)]);
    assert_eq!((over.status, over.deleted, over.finished_at), (TaskStatus::Succeeded, Some(6), Some(20)));
    assert!(over.stale.is_empty());
}

#[test]
fn a_replica_that_ends_otherwise_is_stale() {
    let over = over(&[
        part("a", &[0, 1], State::Succeeded),
        part("b", &[1], State::Failed),
        part("c", &[0], State::Succeeded),
    ]);
    assert_eq!(over.status, TaskStatus::Succeeded);
    assert_eq!(over.stale, BTreeSet::from([(Shard(1), "b".into())]));
}

#[test]
fn a_copy_that_was_replaced_afterwards_is_as_the_others() {
    let failed = part("b", &[0, 1], State::Failed);
    let failed = TrackedNodeTask { replaced: BTreeSet::from([Shard(0)]), ..failed };
    let over = over(&[part("a", &[0, 1], State::Succeeded), failed]);
    assert_eq!((over.status, over.stale), (TaskStatus::Succeeded, BTreeSet::from([(Shard(1), "b".into())])));
    assert_eq!(over.written, BTreeSet::from([Shard(0), Shard(1)]));
}

#[test]
fn a_shard_that_all_refuse_fails_the_task() {
    let over = over(&[part("a", &[0], State::Failed), part("b", &[1], State::Succeeded)]);
    assert_eq!((over.status, over.error.unwrap().code.as_str()), (TaskStatus::Failed, "index_not_found"));
    assert!(over.stale.is_empty());
}

#[test]
fn a_node_that_is_away_blocks_only_what_nobody_else_has() {
    let stood_in = over(&[part("a", &[0], State::Away), part("b", &[0], State::Succeeded)]);
    assert_eq!((stood_in.status, stood_in.stale.len()), (TaskStatus::Succeeded, 1));
    let alone = [part("a", &[0], State::Away), part("b", &[1], State::Succeeded)];
    assert!(matches!(judge(&alone, OutcomeRule::Best, &BTreeSet::new()), Verdict::Pending { .. }));
}

#[test]
fn steps_are_waited_for_but_decide_nothing() {
    let mut step = part("b", &[], State::Waiting);
    step.main = false;
    let main = part("a", &[0], State::Succeeded);
    assert!(matches!(
        judge(&[main.clone(), step.clone()], OutcomeRule::Best, &BTreeSet::new()),
        Verdict::Pending { .. }
    ));
    step.seen.state = State::Failed;
    assert_eq!(over(&[main, step]).status, TaskStatus::Succeeded);
}

#[test]
fn a_node_that_has_no_room_for_a_step_is_behind() {
    let step = |node: &str, state, kind: &str| {
        let mut step = TrackedNodeTask { main: false, ..part(node, &[], state) };
        if let Some(error) = &mut step.seen.error {
            error.kind = kind.to_owned();
        }
        step
    };
    let behind = |kind| {
        let steps = [step("a", State::Succeeded, kind), step("b", State::Failed, kind)];
        let written = ["a", "b"].map(|node| part(node, &[0], State::Succeeded));
        let over = over(&steps.into_iter().chain(written).collect::<Vec<_>>());
        assert_eq!(over.status, TaskStatus::Succeeded);
        over.behind
    };
    assert_eq!(
        behind("system"),
        BTreeSet::from(["b".into()]),
        "its documents made the index without settings"
    );
    assert_eq!(behind("internal"), BTreeSet::from(["b".into()]));
    assert!(behind("invalid_request").is_empty(), "the index was there");
}

#[test]
fn operations_on_all_nodes_leave_those_behind_that_differ() {
    let over = over(&[part("a", &[], State::Succeeded), part("b", &[], State::Failed)]);
    assert_eq!((over.status, over.behind), (TaskStatus::Succeeded, BTreeSet::from(["b".into()])));
}

#[test]
fn what_one_node_refuses_none_keeps() {
    let judged = |parts: &[TrackedNodeTask], decides, behind: &[&str]| {
        let behind = behind.iter().map(|name| (*name).into()).collect();
        match judge(parts, decides, &behind) {
            Verdict::Outcome(over) => *over,
            Verdict::Pending { .. } => panic!("pending"),
        }
    };
    let names = |names: &[&str]| names.iter().map(|name| NodeName::from(*name)).collect::<BTreeSet<_>>();
    let failed = |node: &str, kind: &str, code: &str| {
        let mut part = part(node, &[], State::Failed);
        let of = |error| ErrorBody { kind: kind.into(), code: code.into(), ..error };
        part.seen.error = part.seen.error.map(of);
        part
    };
    let parts = [
        failed("d", "internal", "internal"),
        part("a", &[], State::Succeeded),
        failed("b", "invalid_request", "vector_embedding_error"),
        part("c", &[], State::Away),
    ];
    let over = judged(&parts, OutcomeRule::Refusal, &[]);
    assert_eq!(
        (over.status, over.error.unwrap().code.as_str()),
        (TaskStatus::Failed, "vector_embedding_error")
    );
    assert_eq!((over.to_roll_back, over.behind), (names(&["a"]), names(&["c", "d"])));
    // Refusals by a node that is behind do not count.
    let over = judged(&parts, OutcomeRule::Refusal, &["b"]);
    assert_eq!(
        (over.status, over.to_roll_back, over.behind),
        (TaskStatus::Succeeded, names(&[]), names(&["b", "c", "d"]))
    );
    // A node without space, or one that disagrees about which indexes exist, does not refuse either.
    let parts = [parts[0].clone(), parts[1].clone(), part("b", &[], State::Failed)];
    for (decides, behind) in [(OutcomeRule::Refusal, &["b", "d"][..]), (OutcomeRule::Deletion, &["d"])] {
        let over = judged(&parts, decides, &[]);
        assert_eq!(
            (over.status, over.to_roll_back, over.behind),
            (TaskStatus::Succeeded, names(&[]), names(behind))
        );
    }
}

#[test]
fn deletions_are_counted_once_where_nodes_tell_enough() {
    let counted = |parts: &[(&[u16], u64)]| {
        let parts: Vec<TrackedNodeTask> = parts
            .iter()
            .map(|(shards, count)| {
                let mut part = part("n", shards, State::Succeeded);
                part.seen.details = Some(json!({"deletedDocuments": count}));
                part
            })
            .collect();
        over(&parts).deleted
    };
    // Shard 0 has one document, shard 1 five, shard 2 ten.
    assert_eq!(counted(&[(&[0, 1], 6), (&[1, 2], 15), (&[0, 2], 11)]), Some(16), "all replicas");
    assert_eq!(counted(&[(&[0, 1], 6), (&[1, 2], 15), (&[2], 10)]), Some(16), "one is away for one shard");
    assert_eq!(counted(&[(&[0, 1, 2], 16), (&[1], 5)]), Some(16), "one node has them all");
    assert_eq!(counted(&[(&[0, 1], 5), (&[1, 2], 5), (&[2], 0)]), Some(5), "some had none");
    assert_eq!(counted(&[(&[0, 1], 0), (&[1, 2], 0)]), Some(0));
    assert_eq!(counted(&[(&[0, 1], 6), (&[1, 2], 15)]), Some(16), "nobody can tell: a mean, by luck exact");
}

#[test]
fn a_task_is_interrupted_if_its_node_stops_before_the_end_is_known() {
    let stopped = |state| {
        let mut part = part("a", &[], state);
        part.stopped();
        part
    };
    for over in [State::Succeeded, State::Failed, State::Canceled] {
        assert!(!stopped(over).is_interrupted, "{over:?}");
    }
    for open in [State::Waiting, State::Processing, State::Away] {
        let mut part = stopped(open);
        assert!(part.is_interrupted, "{open:?}");
        // What the node reports afterwards does not change that.
        part.report(ReportedState { state: State::Succeeded, ..ReportedState::default() }, false);
        assert!(part.is_interrupted, "{open:?}");
    }
}

#[test]
fn a_node_that_is_behind_and_lacks_the_index_has_no_documents_to_delete() {
    let reported = |shards: &[u16], is_behind| {
        let mut part = part("a", shards, State::Failed);
        let seen = ReportedState { details: Some(json!({"deletedDocuments": null})), ..part.seen.clone() };
        part.report(seen, is_behind);
        part
    };
    let both = [reported(&[0], true), part("b", &[1], State::Succeeded)];
    assert_eq!((over(&both).status, over(&both).deleted), (TaskStatus::Succeeded, Some(6)));
    let alone = over(&[reported(&[0], true)]);
    assert_eq!((alone.status, alone.deleted, alone.error), (TaskStatus::Succeeded, Some(0), None));
    // What concerns whole indexes fails there, and so does a write where the index should be.
    assert_eq!(over(&[reported(&[], true)]).status, TaskStatus::Failed);
    assert_eq!(over(&[reported(&[0], false)]).status, TaskStatus::Failed);
}

#[test]
fn a_node_that_is_behind_does_not_say_which_indexes_there_are() {
    // It has not done an earlier deletion, and so it could swap what the others do not have any more.
    let parts =
        [part("a", &[], State::Failed), part("b", &[], State::Failed), part("c", &[], State::Succeeded)];
    let by = |behind: &str| match judge(&parts, OutcomeRule::Best, &BTreeSet::from([behind.into()])) {
        Verdict::Outcome(over) => (over.status, over.behind, over.to_roll_back),
        Verdict::Pending { .. } => panic!("pending"),
    };
    let c = BTreeSet::from(["c".into()]);
    assert_eq!(by("c"), (TaskStatus::Failed, c, BTreeSet::new()));
    let others = BTreeSet::from(["a".into(), "b".into()]);
    assert_eq!(by("a"), (TaskStatus::Succeeded, others, BTreeSet::new()), "c may know");
}

#[test]
fn an_edit_that_a_node_may_have_done_twice_is_taken_from_replicas_that_did_it_once() {
    let parts = [
        part("a", &[0, 1, 2], State::Succeeded),
        part("b", &[1, 2], State::Succeeded),
        part("c", &[2, 3], State::Succeeded),
        part("d", &[3], State::Away),
    ];
    let stale = |stopped: &[&str]| {
        let repeated = repeated(&parts, &stopped.iter().map(|node| NodeName::from(*node)).collect());
        repeated.into_iter().map(|(shard, node)| format!("{} {node}", shard.0)).collect::<Vec<_>>()
    };
    assert!(stale(&[]).is_empty());
    // Of shards 0 and 3 it has the only replica that did it.
    assert_eq!(stale(&["a"]), ["1 a", "2 a"]);
    assert_eq!(stale(&["c"]), ["2 c"]);
    assert_eq!(stale(&["a", "b"]), ["1 b", "2 a", "2 b"]);
    assert_eq!(stale(&["a", "b", "c", "d"]), ["1 b", "2 b", "2 c"], "all become what one of them is");
}
