//! Records what is written to shards while they are copied.

use miroir_core::shard::Shard;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What has been written to the copied shards, by index.
pub type RecordedWrites = BTreeMap<String, IndexChanges>;

/// What has been written to an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexChanges {
    /// Documents of these ids.
    Ids(BTreeSet<String>),
    /// Unknown documents: any may have changed.
    All,
}

impl IndexChanges {
    fn add(&mut self, other: Self) {
        match (self, other) {
            (Self::Ids(ids), Self::Ids(more)) => ids.extend(more),
            (this, _) => *this = Self::All,
        }
    }
}

fn add(dirty: &mut RecordedWrites, index: String, written: IndexChanges) {
    dirty.entry(index).or_insert_with(|| IndexChanges::Ids(BTreeSet::new())).add(written);
}

/// The number of documents written; `usize::MAX` if it is unknown.
#[must_use]
pub fn count(dirty: &RecordedWrites) -> usize {
    let of_index = |written: &IndexChanges| match written {
        IndexChanges::Ids(ids) => ids.len(),
        IndexChanges::All => usize::MAX,
    };
    dirty.values().map(of_index).fold(0, usize::saturating_add)
}

/// The running recordings.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    recordings: Arc<Mutex<Recordings>>,
}

#[derive(Debug, Default)]
struct Recordings {
    next: u64,
    running: BTreeMap<u64, Running>,
}

#[derive(Debug)]
struct Running {
    /// The index that is recorded; `None` for all.
    index: Option<String>,
    shards: BTreeMap<Shard, RecordedWrites>,
}

impl Running {
    fn is_of(&self, index: &str) -> bool {
        self.index.as_deref().is_none_or(|of| of == index)
    }
}

/// A recording. Dropping this ends it.
#[derive(Debug)]
pub struct Recording {
    recorder: Recorder,
    id: u64,
}

impl Recorder {
    /// Starts to record writes to these shards, of one index or of all. Writes that began before are not recorded: the mover
    /// waits for them before it copies.
    #[must_use]
    pub fn start(&self, index: Option<&str>, shards: impl IntoIterator<Item = Shard>) -> Recording {
        let mut recordings = self.recordings();
        let id = recordings.next;
        recordings.next += 1;
        let shards = shards.into_iter().map(|shard| (shard, RecordedWrites::new())).collect();
        recordings.running.insert(id, Running { index: index.map(ToOwned::to_owned), shards });
        Recording { recorder: self.clone(), id }
    }

    /// Those of `shards` that are being recorded for an index.
    #[must_use]
    pub fn recorded(&self, index: &str, shards: &[Shard]) -> Vec<Shard> {
        let recordings = self.recordings();
        let is_recorded = |shard: &Shard| {
            recordings.running.values().any(|of| of.is_of(index) && of.shards.contains_key(shard))
        };
        shards.iter().copied().filter(is_recorded).collect()
    }

    /// Records a write of these document ids to a shard of an index; `None` if the ids are unknown.
    pub fn written(&self, index: &str, shard: Shard, ids: Option<&BTreeSet<String>>) {
        let written = || ids.map_or(IndexChanges::All, |ids| IndexChanges::Ids(ids.clone()));
        let mut recordings = self.recordings();
        let of_index = recordings.running.values_mut().filter(|running| running.is_of(index));
        for dirty in of_index.filter_map(|running| running.shards.get_mut(&shard)) {
            add(dirty, index.to_owned(), written());
        }
    }

    /// Records that indexes were created, changed, renamed, swapped or deleted; `None` for all of `known`.
    pub fn indexes_changed(&self, indexes: Option<&BTreeSet<String>>, known: impl Iterator<Item = String>) {
        let changed: Vec<String> = match indexes {
            Some(indexes) => indexes.iter().cloned().collect(),
            None => known.collect(),
        };
        for Running { index: of, shards } in self.recordings().running.values_mut() {
            let changed = changed.iter().filter(|index| of.as_ref().is_none_or(|of| of == *index));
            let all = changed.map(|index| (index.clone(), IndexChanges::All));
            shards.values_mut().for_each(|dirty| dirty.extend(all.clone()));
        }
    }

    fn recordings(&self) -> MutexGuard<'_, Recordings> {
        self.recordings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recording {
    /// Takes what has been written since the last call.
    #[must_use]
    pub fn take(&self) -> RecordedWrites {
        let mut all = RecordedWrites::new();
        let mut recordings = self.recorder.recordings();
        let running = recordings.running.get_mut(&self.id);
        for dirty in running.into_iter().flat_map(|running| running.shards.values_mut()) {
            for (index, written) in std::mem::take(dirty) {
                add(&mut all, index, written);
            }
        }
        all
    }

    /// Whether nothing has been written to a shard since the last call of [`Self::take`].
    #[must_use]
    pub fn is_clean(&self, shard: Shard) -> bool {
        let recordings = self.recorder.recordings();
        let dirty = recordings.running.get(&self.id).and_then(|running| running.shards.get(&shard));
        dirty.is_none_or(BTreeMap::is_empty)
    }

    /// Stops recording these shards: their new replicas now receive writes directly.
    pub fn end(&self, shards: &[Shard]) {
        if let Some(recorded) = self.recorder.recordings().running.get_mut(&self.id) {
            recorded.shards.retain(|shard, _| !shards.contains(shard));
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.recorder.recordings().running.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn ids_are_recorded_for_the_shards_of_a_copy_only() {
        let recorder = Recorder::default();
        recorder.written("a", Shard(1), Some(&ids(&["before"])));
        let recording = recorder.start(None, [Shard(1), Shard(2)]);
        assert_eq!(recorder.recorded("a", &[Shard(0), Shard(1), Shard(9)]), [Shard(1)]);
        recorder.written("a", Shard(1), Some(&ids(&["x"])));
        recorder.written("a", Shard(3), Some(&ids(&["elsewhere"])));
        recorder.written("a", Shard(2), Some(&ids(&["y"])));
        recorder.written("b", Shard(2), None);
        let taken = recording.take();
        let expected =
            [("a".to_owned(), IndexChanges::Ids(ids(&["x", "y"]))), ("b".to_owned(), IndexChanges::All)]
                .into();
        assert_eq!(taken, expected);
        assert_eq!((count(&taken), count(&RecordedWrites::new())), (usize::MAX, 0));
        assert!(recording.take().is_empty());
        recorder.written("b", Shard(2), None);
        recorder.written("b", Shard(2), Some(&ids(&["z"])));
        assert!(recording.is_clean(Shard(1)) && !recording.is_clean(Shard(2)));
        assert_eq!(recording.take(), [("b".to_owned(), IndexChanges::All)].into(), "all stays all");
        assert!(recording.is_clean(Shard(2)));
        recording.end(&[Shard(2)]);
        recorder.written("b", Shard(2), None);
        assert!(recording.take().is_empty());
        recorder.indexes_changed(None, ["c".to_owned()].into_iter());
        assert_eq!(recording.take(), [("c".to_owned(), IndexChanges::All)].into());
        drop(recording);
        assert!(recorder.recorded("a", &[Shard(1)]).is_empty());
    }

    #[test]
    fn a_recording_of_one_index_hears_nothing_of_others() {
        let recorder = Recorder::default();
        let recording = recorder.start(Some("a"), [Shard(1)]);
        assert_eq!(recorder.recorded("a", &[Shard(1)]), [Shard(1)]);
        assert!(recorder.recorded("b", &[Shard(1)]).is_empty());
        recorder.written("b", Shard(1), Some(&ids(&["x"])));
        recorder.indexes_changed(None, ["b".to_owned()].into_iter());
        assert!(recording.is_clean(Shard(1)));
        recorder.written("a", Shard(1), Some(&ids(&["y"])));
        assert_eq!(recording.take(), [("a".to_owned(), IndexChanges::Ids(ids(&["y"])))].into());
        recorder.indexes_changed(None, ["a".to_owned(), "b".to_owned()].into_iter());
        assert_eq!(recording.take(), [("a".to_owned(), IndexChanges::All)].into());
    }
}
