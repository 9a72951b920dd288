//! Finds a short history that fails as a long one does.

use super::plan::{Plan, Step};

/// Leaves out steps as long as the history still fails.
pub fn shrink(plan: &Plan, fails: impl Fn(&Plan) -> bool) -> Plan {
    let mut best = plan.clone();
    let mut size = best.steps.len().div_ceil(2);
    while size > 0 {
        let mut start = 0;
        while start < best.steps.len() {
            let is_left = |place: usize| place < start || place >= start + size;
            let steps: Vec<Step> = best
                .steps
                .iter()
                .enumerate()
                .filter(|(place, _)| is_left(*place))
                .map(|(_, step)| step.clone())
                .collect();
            let shorter = Plan { steps, ..best.clone() };
            if fails(&shorter) {
                best = shorter;
            } else {
                start += size;
            }
        }
        size /= 2;
    }
    best
}
