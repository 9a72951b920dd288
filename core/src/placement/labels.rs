//! Finds the row of each replica of a placement. Its lists are in the order of rows, but for those of which a node is gone, and for placements
//! that were made without rows.

/// With up to so many rows, all ways to give a shard's nodes rows are tried.
const MOST_TRIED: usize = 4;
/// After so many rounds no row changes any more, or they change back and forth.
const ROUNDS: usize = 16;

/// For each row and shard, the node that has it, so that nodes are in few rows. `previous`: for each shard, its nodes, at most `rows`.
pub(super) fn rows_of(previous: &[Vec<usize>], rows: usize, nodes: usize) -> Vec<Vec<Option<usize>>> {
    let mut labelled = as_listed(previous, rows);
    let memberships = |labelled: &Vec<Vec<Option<usize>>>| -> usize {
        counts(labelled, rows, nodes).iter().flatten().filter(|count| **count > 0).count()
    };
    let is_whole =
        previous.iter().zip(&labelled).all(|(held, rows)| held.len() == rows.iter().flatten().count());
    if !is_whole {
        labelled = settled(previous, labelled, rows, nodes);
    }
    let from_scratch = settled(previous, apart(previous, rows, nodes), rows, nodes);
    let mut next = [settled(previous, labelled.clone(), rows, nodes), from_scratch];
    next.sort_by_key(memberships);
    // Rows that are as good stay: whoever asks again gets the same.
    while let Some(better) = next.iter().find(|next| memberships(next) < memberships(&labelled)).cloned() {
        next = [settled(previous, better.clone(), rows, nodes), better.clone()];
        labelled = better;
    }
    let of_row = |row: usize| labelled.iter().map(|nodes| nodes.get(row).copied().flatten()).collect();
    (0..rows).map(of_row).collect()
}

/// The rows as the lists have them, for the lists that are as long as any.
fn as_listed(previous: &[Vec<usize>], rows: usize) -> Vec<Vec<Option<usize>>> {
    let longest = previous.iter().map(Vec::len).max().unwrap_or(0);
    let of_shard = |held: &Vec<usize>| {
        (0..rows).map(|row| held.get(row).copied().filter(|_| held.len() == longest)).collect()
    };
    previous.iter().map(of_shard).collect()
}

/// Puts each node into the row whose nodes have fewest shards in common with it, those with most shards in common with the others first.
fn apart(previous: &[Vec<usize>], rows: usize, nodes: usize) -> Vec<Vec<Option<usize>>> {
    let mut common = vec![vec![0_u32; nodes]; nodes];
    for held in previous {
        for (one, other) in held.iter().flat_map(|one| held.iter().map(move |other| (*one, *other))) {
            if let Some(common) = common.get_mut(one).and_then(|common| common.get_mut(other)) {
                *common += u32::from(one != other);
            }
        }
    }
    let with = |node: usize, row: usize, homes: &[Option<usize>]| -> u32 {
        let common = common.get(node).into_iter().flatten().zip(homes);
        common.filter(|(_, home)| **home == Some(row)).map(|(common, _)| *common).sum()
    };
    let mut homes: Vec<Option<usize>> = vec![None; nodes];
    for _ in 0..nodes {
        let open = (0..nodes).filter(|node| homes.get(*node) == Some(&None));
        let next = open.max_by_key(|node| (0..rows).map(|row| with(*node, row, &homes)).sum::<u32>());
        let Some(next) = next else { break };
        let row = (0..rows).min_by_key(|row| with(next, *row, &homes));
        if let Some(home) = homes.get_mut(next) {
            *home = row;
        }
    }
    let home = |node: usize| homes.get(node).copied().flatten();
    let of_shard = |held: &Vec<usize>| {
        (0..rows).map(|row| held.iter().copied().find(|node| home(*node) == Some(row))).collect()
    };
    previous.iter().map(of_shard).collect()
}

/// Gives each shard's nodes the rows where they have most of their other shards, until no more changes.
fn settled(
    previous: &[Vec<usize>],
    mut labelled: Vec<Vec<Option<usize>>>,
    rows: usize,
    nodes: usize,
) -> Vec<Vec<Option<usize>>> {
    for _ in 0..ROUNDS {
        let counts = counts(&labelled, rows, nodes);
        let next: Vec<Vec<Option<usize>>> =
            previous.iter().zip(&labelled).map(|(held, now)| best(held, now, &counts, rows)).collect();
        if next == labelled {
            break;
        }
        labelled = next;
    }
    labelled
}

/// How many shards each node has in each row.
fn counts(labelled: &[Vec<Option<usize>>], rows: usize, nodes: usize) -> Vec<Vec<u32>> {
    let mut counts = vec![vec![0; rows]; nodes];
    for held in labelled {
        for (row, node) in held.iter().enumerate() {
            let count = node.and_then(|node| counts.get_mut(node)).and_then(|counts| counts.get_mut(row));
            if let Some(count) = count {
                *count += 1;
            }
        }
    }
    counts
}

/// Gives each of a shard's nodes a row, where it has most of its other shards. What is as good as `now` stays.
fn best(held: &[usize], now: &[Option<usize>], counts: &[Vec<u32>], rows: usize) -> Vec<Option<usize>> {
    let value = |nodes: &[Option<usize>]| -> u64 {
        let of = |(row, node): (usize, &Option<usize>)| {
            let count = node.and_then(|node| counts.get(node)).and_then(|counts| counts.get(row));
            // Squares: nodes go where they are already, not half here and half there.
            count.map_or(0, |count| u64::from(*count) * u64::from(*count))
        };
        nodes.iter().enumerate().map(of).sum()
    };
    let is_all = held.iter().all(|node| now.contains(&Some(*node)));
    if rows > MOST_TRIED {
        let found = greedy(held, counts, rows);
        return if is_all && value(now) >= value(&found) { now.to_vec() } else { found };
    }
    let mut best = is_all.then(|| (value(now), now.to_vec()));
    let mut stack = vec![vec![None; rows]];
    for node in held {
        let mut next = Vec::new();
        for nodes in &stack {
            for row in (0..rows).filter(|row| nodes.get(*row) == Some(&None)) {
                let mut with = nodes.clone();
                if let Some(place) = with.get_mut(row) {
                    *place = Some(*node);
                }
                next.push(with);
            }
        }
        stack = next;
    }
    for nodes in stack {
        let found = value(&nodes);
        if best.as_ref().is_none_or(|(value, _)| found > *value) {
            best = Some((found, nodes));
        }
    }
    best.map_or_else(|| vec![None; rows], |(_, nodes)| nodes)
}

/// Gives a row to one node after the other, first to the one that has most shards in a row.
fn greedy(held: &[usize], counts: &[Vec<u32>], rows: usize) -> Vec<Option<usize>> {
    let count =
        |node: usize, row: usize| counts.get(node).and_then(|counts| counts.get(row)).copied().unwrap_or(0);
    let mut pairs: Vec<(usize, usize)> =
        held.iter().flat_map(|node| (0..rows).map(move |row| (*node, row))).collect();
    pairs.sort_by_key(|(node, row)| std::cmp::Reverse(count(*node, *row)));
    let mut found = vec![None; rows];
    for (node, row) in pairs {
        let is_free = !found.contains(&Some(node));
        if let Some(place) = found.get_mut(row).filter(|place| is_free && place.is_none()) {
            *place = Some(node);
        }
    }
    found
}
