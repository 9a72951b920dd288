//! What is seen in the ledger while a history goes on.

use super::World;
use crate::check::rows;
use rusqlite::OptionalExtension;

impl World {
    /// Looks at the ledger, if something was written to it.
    pub(super) fn look_at_ledger(&mut self) {
        let writes = self.setup.disk.writes();
        if std::mem::replace(&mut self.seen_writes, writes) != writes {
            self.keep_new_rows();
            self.keep_missed();
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
}
