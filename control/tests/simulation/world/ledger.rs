//! What is seen in the ledger while a history goes on.

use super::World;
use crate::check::{Row, rows};
use rusqlite::OptionalExtension;
use std::collections::BTreeMap;

impl World {
    /// Looks at the ledger, if something was written to it.
    pub(super) fn look_at_ledger(&mut self) {
        let writes = self.setup.disk.writes();
        if std::mem::replace(&mut self.seen_writes, writes) != writes {
            self.keep_new_rows();
            self.keep_missed();
            self.keep_pruned();
            self.look_at_replicas();
        }
    }

    /// Keeps the ledger's new tasks as they are now: a swap gives earlier ones other names.
    fn keep_new_rows(&mut self) {
        let newest = self.setup.disk.read(|connection| {
            let mut newest = connection
                .prepare_cached("SELECT uid, enqueued_at FROM tasks ORDER BY uid DESC LIMIT 1")
                .unwrap();
            newest.query_row([], |row| Ok((row.get::<_, u32>(0)?, row.get::<_, i64>(1)?))).optional().unwrap()
        });
        if newest == self.newest_row {
            return;
        }
        let of = |row: Option<(u32, i64)>| row.map_or(-1, |(uid, _)| i64::from(uid));
        // A task that was taken back has given its uid to another.
        let after = of(self.newest_row).min(of(newest) - 1);
        self.first_rows.retain(|uid, _| i64::from(*uid) <= after);
        let new = self.setup.disk.read(|connection| rows(connection, after));
        self.first_rows.extend(new.into_iter().map(|row| (row.uid, row)));
        self.newest_row = newest;
    }

    /// Keeps when it was decided which nodes have missed a write.
    fn keep_missed(&mut self) {
        let known = self.missed.len();
        let missed: Vec<(u32, String)> = self.setup.disk.read(|connection| {
            let count: usize = connection
                .prepare_cached("SELECT count(*) FROM missed")
                .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
                .unwrap();
            if count == known {
                return Vec::new();
            }
            let mut all = connection.prepare_cached("SELECT uid, node FROM missed").unwrap();
            let rows = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            rows.map(Result::unwrap).collect()
        });
        for one in missed {
            self.missed.entry(one).or_insert(self.now);
        }
    }

    /// Keeps the tasks that are deleted since there are too many: the oldest ones that have ended, and no sooner.
    fn keep_pruned(&mut self) {
        let Some(limits) = self.setup.task_limits else { return };
        let now = self.setup.disk.read(|connection| rows(connection, -1));
        let now: BTreeMap<u32, Row> = now.into_iter().map(|row| (row.uid, row)).collect();
        let known = std::mem::replace(&mut self.known_rows, now);
        let count = known.len().max(self.known_rows.len());
        let is_there = |uid: &u32| self.known_rows.contains_key(uid);
        // One that has not ended is taken back: its client has not heard of it.
        let (gone, left): (Vec<Row>, Vec<Row>) =
            known.into_values().filter(Row::is_over).partition(|row| !is_there(&row.uid));
        let Some(last) = gone.last().map(|row| row.uid) else { return };
        let mut wrong = Vec::new();
        if (count as u64) < limits.most {
            wrong.push(format!("19: tasks up to {last} are deleted, and there were {count} only"));
        }
        if let Some(older) = left.iter().find(|row| row.uid < last) {
            wrong.push(format!("19: task {last} is deleted before {}, which is older", older.uid));
        }
        self.pruned.extend(gone.into_iter().map(|row| (row.uid, row)));
        self.violations.extend(wrong);
    }
}
