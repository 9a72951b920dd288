//! Which check runs next.
//!
//! A group has a slot from its first check to its last, so that no more fixtures run at once than there are slots. The group with the
//! most seconds ahead of it gets the next slot that is free: what takes longest is not to be last.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

/// The groups, and the slots that they run in.
#[derive(Debug)]
pub(super) struct Schedule {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    free_slots: usize,
    groups: Vec<GroupState>,
}

#[derive(Debug, Default)]
struct GroupState {
    /// The checks that have not ended, by their place in the group: what they take, in seconds.
    checks: BTreeMap<usize, u32>,
    has_slot: bool,
    is_running: bool,
}

impl Schedule {
    pub(super) fn new(slots: usize) -> Arc<Self> {
        let state = State { free_slots: slots.max(1), groups: Vec::new() };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() })
    }

    pub(super) fn add_group(&self) -> usize {
        let mut state = self.lock();
        state.groups.push(GroupState::default());
        state.groups.len() - 1
    }

    /// A check is the group's last for now.
    pub(super) fn add_turn(self: &Arc<Self>, group: usize, seconds: u32) -> Turn {
        let mut state = self.lock();
        let checks = &mut state.groups[group].checks;
        let place = checks.len();
        checks.insert(place, seconds);
        Turn { schedule: Arc::clone(self), group, place }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether this check may begin; if so it has.
    fn begin(&mut self, group: usize, place: usize) -> bool {
        let is_next = self.next_group() == Some(group);
        let of = &mut self.groups[group];
        if of.is_running || of.checks.keys().next() != Some(&place) {
            return false;
        }
        if !of.has_slot {
            if self.free_slots == 0 || !is_next {
                return false;
            }
            self.free_slots -= 1;
            of.has_slot = true;
        }
        of.is_running = true;
        true
    }

    /// The group that gets the next slot.
    fn next_group(&self) -> Option<usize> {
        let waiting = self.groups.iter().enumerate();
        let waiting = waiting.filter(|(_, group)| !group.has_slot && !group.checks.is_empty());
        waiting.max_by_key(|(number, group)| (group.seconds(), Reverse(*number))).map(|(number, _)| number)
    }

    fn end(&mut self, group: usize, place: usize) {
        let of = &mut self.groups[group];
        let was_first = of.checks.keys().next() == Some(&place);
        of.checks.remove(&place);
        if was_first {
            of.is_running = false;
        }
        if of.checks.is_empty() && of.has_slot {
            of.has_slot = false;
            self.free_slots += 1;
        }
    }
}

impl GroupState {
    fn seconds(&self) -> u32 {
        self.checks.values().sum()
    }
}

/// A check's place in the schedule. Its check has ended, or is not selected, when this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    schedule: Arc<Schedule>,
    group: usize,
    place: usize,
}

impl Turn {
    /// Waits until it is this check's turn.
    pub(super) fn wait(&self) {
        let state = self.schedule.lock();
        let is_early = |state: &mut State| !state.begin(self.group, self.place);
        drop(self.schedule.changed.wait_while(state, is_early).unwrap_or_else(PoisonError::into_inner));
        // Now another group may be the next.
        self.schedule.changed.notify_all();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.schedule.lock().end(self.group, self.place);
        self.schedule.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::{Schedule, Turn};
    use std::{collections::BTreeSet, sync::Arc};

    /// Groups of checks, by what each check takes.
    fn groups(schedule: &Arc<Schedule>, of: &[&[u32]]) -> Vec<Vec<Turn>> {
        let turns = |seconds: &&[u32]| {
            let group = schedule.add_group();
            seconds.iter().map(|seconds| schedule.add_turn(group, *seconds)).collect()
        };
        of.iter().map(turns).collect()
    }

    /// Which checks may begin now: they do.
    fn begun(schedule: &Schedule, groups: &[Vec<Turn>]) -> BTreeSet<(usize, usize)> {
        let mut begun = BTreeSet::new();
        // One that begins may let another one begin.
        loop {
            let before = begun.len();
            for turn in groups.iter().flatten() {
                if schedule.lock().begin(turn.group, turn.place) {
                    begun.insert((turn.group, turn.place));
                }
            }
            if begun.len() == before {
                return begun;
            }
        }
    }

    #[test]
    fn the_longest_groups_begin_first_and_keep_their_slots() {
        let schedule = Schedule::new(2);
        let mut groups = groups(&schedule, &[&[5], &[3, 4], &[9], &[1, 1, 1]]);
        assert_eq!(begun(&schedule, &groups), [(1, 0), (2, 0)].into());
        groups[1].remove(0);
        assert_eq!(begun(&schedule, &groups), [(1, 1)].into());
        groups[2].clear();
        assert_eq!(begun(&schedule, &groups), [(0, 0)].into());
        groups[0].clear();
        assert_eq!(begun(&schedule, &groups), [(3, 0)].into());
        groups[1].clear();
        assert_eq!(begun(&schedule, &groups), [].into(), "checks of a group run one after another");
        groups[3].remove(0);
        assert_eq!(begun(&schedule, &groups), [(3, 1)].into());
    }

    #[test]
    fn checks_that_are_not_selected_are_not_waited_for() {
        let schedule = Schedule::new(1);
        let mut groups = groups(&schedule, &[&[1, 30, 1], &[20]]);
        groups[0].remove(1);
        groups[0].remove(0);
        assert_eq!(begun(&schedule, &groups), [(1, 0)].into(), "they do not count");
        groups[1].clear();
        assert_eq!(begun(&schedule, &groups), [(0, 2)].into());
    }

    #[test]
    fn a_check_waits_for_its_turn() {
        let schedule = Schedule::new(1);
        let mut groups = groups(&schedule, &[&[2], &[1]]);
        let (long, short) = (groups.remove(0).remove(0), groups.remove(0).remove(0));
        long.wait();
        let waiting = std::thread::spawn(move || short.wait());
        assert!(!waiting.is_finished());
        drop(long);
        waiting.join().unwrap();
    }
}
