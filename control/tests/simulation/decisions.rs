//! What was decided of writes, against what nodes have taken of them.

use super::{
    control::START,
    plan::{Fault, Part, Plan},
    world::{Party, World},
};
use miroir_control::domain::task_mark::TaskMark;

/// Whoever takes a part of a write so long before its decision, in milliseconds, has told of it when it was asked.
const TOLD: u64 = 2_000;

/// No node is said to have missed a write that it had taken long before that was decided. This is judged where all nodes can be asked all
/// the time.
pub fn judge(world: &mut World, plan: &Plan) {
    let all_tell = plan.steps.iter().all(|step| match &step.part {
        Part::Action(_) => true,
        Part::Fault(fault) => leaves_nodes(fault),
    });
    if !all_tell {
        return;
    }
    let mut wrong = Vec::new();
    for ((uid, name), decided) in &world.missed {
        let tasks = world.nodes.get(name).into_iter().flat_map(|node| node.tasks.values());
        let mut of_write = tasks.filter(|task| {
            let mark = task.metadata.as_deref().and_then(|mark| mark.parse().ok());
            mark == Some(TaskMark::Write(*uid))
        });
        let before = START + i64::try_from(decided.saturating_sub(TOLD)).unwrap() * 1_000_000;
        if let Some(task) = of_write.find(|task| task.enqueued_at <= before) {
            wrong.push(format!(
                "1: {name} is said at {decided} ms to have missed task {uid}, and has taken it before: its task {}",
                task.uid
            ));
        }
    }
    world.violations.extend(wrong);
}

/// Whether every node answers the control plane in spite of a fault, and takes nothing late.
fn leaves_nodes(fault: &Fault) -> bool {
    match fault {
        Fault::Crash
        | Fault::CrashAtWrite { .. }
        | Fault::StopControl { .. }
        | Fault::ClockJump { .. }
        | Fault::CrashGateway { .. }
        | Fault::CrashGatewayAtCall { .. }
        | Fault::StopGateway { .. }
        | Fault::FullNode { .. }
        | Fault::FullLedger { .. }
        | Fault::OwnTasks { .. }
        | Fault::Doubled { .. } => true,
        Fault::Partition { one, other, .. } => [one, other].iter().all(|it| !matches!(it, Party::Node(_))),
        Fault::RestartNode { .. }
        | Fault::LoseDisk { .. }
        | Fault::StopNode { .. }
        | Fault::SlowNode { .. }
        | Fault::Loss { .. }
        | Fault::SlowNetwork { .. }
        | Fault::LateBody { .. } => false,
    }
}
