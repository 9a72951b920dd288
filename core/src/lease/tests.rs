use super::*;
use crate::http::Answer;
use serde_json::json;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const LEASE: Duration = Duration::from_millis(10_000);

fn topology(version: u64, on_lost: &str) -> Topology {
    let config = json!({"schema": 1, "version": version, "nodes": [{"name": "a", "cluster": "a"}], "placement": [[0]],
        "control": {"cluster": "control", "secret": "s"}, "onLostControl": on_lost,
        "limits": {"leaseMs": LEASE.as_millis() as u64}});
    Topology::from_json(config.to_string().as_bytes()).unwrap()
}

fn answered(needed: u64, lease: bool) -> Outcome {
    let body = json!({"needed": needed, "lease": lease}).to_string().into_bytes();
    Outcome::Answered(Answer { status: 200, headers: Vec::new(), body })
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_lease_lasts_from_the_report_and_not_from_its_answer() {
    let (mut lease, topology) = (Lease::default(), topology(3, "serve"));
    assert_eq!(lease.permission(&topology, seconds(1)), Permission::Ask);
    lease.sent(1, seconds(1));
    assert_eq!(lease.digest(1, answered(0, true), seconds(3)), Some(AfterReport::Done));
    assert_eq!(
        lease.permission(&topology, seconds(1) + LEASE - Duration::from_millis(1)),
        Permission::Granted
    );
    assert_eq!(lease.permission(&topology, seconds(1) + LEASE), Permission::Ask);
}

#[test]
fn an_answer_counts_once() {
    let (mut lease, topology) = (Lease::default(), topology(3, "serve"));
    lease.sent(1, seconds(1));
    assert_eq!(lease.digest(1, answered(0, true), seconds(1)), Some(AfterReport::Done));
    assert_eq!(lease.digest(1, answered(9, true), seconds(8)), None);
    assert_eq!(lease.digest(2, answered(9, true), seconds(8)), None, "nothing was sent under that token");
    assert_eq!(lease.permission(&topology, seconds(1) + LEASE), Permission::Ask);
}

#[test]
fn an_answer_without_a_lease_makes_the_vm_report_again() {
    let (mut lease, topology) = (Lease::default(), topology(3, "serve"));
    assert_eq!(lease.report(&topology, Report::default()).has_heard, Some(false));
    lease.sent(1, seconds(1));
    assert_eq!(lease.digest(1, answered(2, false), seconds(1)), Some(AfterReport::Again));
    assert_eq!(lease.permission(&topology, seconds(1)), Permission::Ask);
    let report = lease.report(&topology, Report { vm: "v".into(), waits: true, ..Report::default() });
    assert_eq!(
        (report.needed, report.has_heard, report.waits, &*report.vm),
        (Some(2), Some(true), true, "v")
    );
}

#[test]
fn a_topology_that_is_not_enough_is_not_read_by() {
    let mut lease = Lease::default();
    lease.sent(1, seconds(1));
    let _ = lease.digest(1, answered(4, true), seconds(1));
    assert_eq!(lease.permission(&topology(3, "serve"), seconds(2)), Permission::Outdated);
    assert_eq!(lease.permission(&topology(4, "serve"), seconds(2)), Permission::Granted);
    lease.sent(2, seconds(2));
    let _ = lease.digest(2, answered(0, true), seconds(2));
    assert_eq!(lease.permission(&topology(3, "serve"), seconds(2)), Permission::Outdated);
}

#[test]
fn without_the_control_plane_a_vm_goes_on_or_does_not_as_configured() {
    let mut lease = Lease::default();
    lease.sent(1, seconds(1));
    let _ = lease.digest(1, answered(0, true), seconds(1));
    lease.sent(2, seconds(20));
    assert_eq!(lease.digest(2, Outcome::Failed, seconds(21)), Some(AfterReport::Done));
    assert_eq!(lease.permission(&topology(3, "serve"), seconds(22)), Permission::CutOff(21));
    assert_eq!(lease.permission(&topology(3, "refuse"), seconds(22)), Permission::Refused);
    assert_eq!(lease.permission(&topology(3, "refuse"), seconds(25)), Permission::Ask, "it may be back");
    lease.not_sent(seconds(30));
    assert_eq!(lease.permission(&topology(3, "refuse"), seconds(30)), Permission::Refused);
    // A VM that was stopped hears late that its report failed: that says nothing of the control plane.
    let mut stopped = Lease::default();
    stopped.sent(1, seconds(1));
    assert_eq!(stopped.digest(1, Outcome::Failed, seconds(100)), Some(AfterReport::Done));
    assert_eq!(stopped.permission(&topology(3, "refuse"), seconds(100)), Permission::Ask);
}

#[test]
fn a_topology_of_nobody_is_read_by() {
    let config =
        json!({"schema": 1, "version": 1, "nodes": [{"name": "a", "cluster": "a"}], "placement": [[0]]});
    let topology = Topology::from_json(config.to_string().as_bytes()).unwrap();
    assert_eq!(Lease::default().permission(&topology, seconds(1)), Permission::Granted);
}

#[cfg(not(target_arch = "wasm32"))]
mod properties {
    use super::*;
    use proptest::prelude::*;

    /// What happens to a VM.
    #[derive(Clone, Debug)]
    enum Event {
        /// So many milliseconds go by; the VM may have been stopped.
        Wait(u64),
        /// It reports.
        Report,
        /// It cannot report.
        NotSent,
        /// An answer comes to one of the reports that were ever sent, also to one that was answered before.
        Answer { report: usize, outcome: Answered },
    }

    #[derive(Clone, Copy, Debug)]
    enum Answered {
        Reply { needed: u64, lease: bool },
        Nonsense,
        Failed,
    }

    impl Answered {
        fn outcome(self) -> Outcome {
            match self {
                Self::Reply { needed, lease } => answered(needed, lease),
                Self::Nonsense => Outcome::Answered(Answer { status: 200, ..Answer::default() }),
                Self::Failed => Outcome::Failed,
            }
        }
    }

    fn event() -> impl Strategy<Value = Event> {
        let outcome = prop_oneof![
            4 => (0..6u64, prop::bool::weighted(0.8)).prop_map(|(needed, lease)| Answered::Reply { needed, lease }),
            1 => Just(Answered::Nonsense),
            1 => Just(Answered::Failed),
        ];
        prop_oneof![
            3 => (0..4_000u64).prop_map(Event::Wait),
            1 => (0..30_000u64).prop_map(Event::Wait),
            3 => Just(Event::Report),
            1 => Just(Event::NotSent),
            5 => (any::<usize>(), outcome).prop_map(|(report, outcome)| Event::Answer { report, outcome }),
        ]
    }

    /// A report, as the test remembers it.
    struct Sent {
        at: Duration,
        /// When it came to the control plane, by that one's clock: at once, or later.
        came: Duration,
        granted: bool,
        answered: bool,
    }

    proptest! {
        /// Whatever comes in whatever order: who may read has a lease that some report asked for less than a lease ago, and knows of
        /// nothing that needs a newer topology. The control plane takes its lease as lasting, also where this VM's clock goes slower
        /// than the control plane's, down to two thirds.
        #[test]
        fn nobody_reads_beyond_what_was_granted(
            events in prop::collection::vec(event(), 1..80),
            rate in 667..=1000u32,
            transit in 0..500u64,
        ) {
            let topology = topology(3, "refuse");
            let (mut lease, mut now) = (Lease::default(), seconds(5));
            let mut sent: Vec<Sent> = Vec::new();
            let (mut needed, mut cannot_send) = (0, false);
            // What the control plane's clock says when this VM's says so.
            let control_time = |vm: Duration| vm * 1000 / rate;
            for event in events {
                match event {
                    Event::Wait(ms) => now += Duration::from_millis(ms),
                    Event::Report => {
                        lease.sent(sent.len() as u32, now);
                        let came = control_time(now) + Duration::from_millis(transit);
                        sent.push(Sent { at: now, came, granted: false, answered: false });
                    }
                    Event::NotSent => {
                        lease.not_sent(now);
                        cannot_send = true;
                    }
                    Event::Answer { report, outcome } if !sent.is_empty() => {
                        let token = report % sent.len();
                        let report = &mut sent[token];
                        // No answer comes before the report has come.
                        now = now.max((report.came * rate) / 1000 + Duration::from_millis(1));
                        let awaited = lease.awaits(token as u32);
                        prop_assert!(!(awaited && report.answered), "an answer counts once");
                        let heard = lease.digest(token as u32, outcome.outcome(), now);
                        prop_assert_eq!(heard.is_some(), awaited);
                        if let (Some(heard), Answered::Reply { needed: told, lease: granted }) = (heard, outcome) {
                            prop_assert_eq!(heard == AfterReport::Again, !granted);
                            needed = needed.max(told);
                            report.granted |= granted;
                            cannot_send = false;
                        } else if heard.is_some() {
                            cannot_send = true;
                        }
                        report.answered = true;
                    }
                    Event::Answer { .. } => {}
                }
                let lasts = |report: &&Sent| report.granted && now - report.at < LEASE;
                match lease.permission(&topology, now) {
                    Permission::Granted => {
                        prop_assert!(needed <= topology.version());
                        let lasting = sent.iter().find(lasts);
                        prop_assert!(lasting.is_some(), "no lease that was granted lasts");
                        let since = control_time(now).saturating_sub(lasting.unwrap().came);
                        prop_assert!(since < LEASE * 3 / 2, "the control plane takes the lease as over");
                    }
                    Permission::Outdated => prop_assert!(needed > topology.version()),
                    permission => {
                        prop_assert!(needed <= topology.version());
                        prop_assert!(!sent.iter().any(|report| lasts(&report)), "a lease that lasts counts");
                        prop_assert!(permission == Permission::Ask || cannot_send, "{permission:?}");
                        prop_assert!(!matches!(permission, Permission::CutOff(_)));
                    }
                }
            }
        }
    }
}
