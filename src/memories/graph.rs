//! The graph: a scope's newest memories, joined by threads and by tags in common, and the clusters of their tags.
//!
//! Invariants
//! - Nodes are what the asker may see, newest first, at most as many as asked for; edges join nodes alone.
//! - The weight of an edge between memories that share tags is the number of those tags; where more than [`limits::GRAPH_EDGES_MAX`] such edges
//!   are found, the heaviest between the newest stay and the answer says that it is cut.
//! - The same memories give the same graph.

use std::collections::{BTreeMap, HashMap};

use super::Refusal;
use super::clusters::{self, Cluster, Topic};
use crate::audit::Detail;
use crate::base::id::MemoryId;
use crate::base::{limits, order};
use crate::policy::action::{Action, Reads, Scope};
use crate::store::gate::Access;
use crate::store::memories::{self as table, Memory, Part, State};

/// What graph is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Only memories of so many days; `None`: of all.
    pub days: Option<u64>,
    /// Nodes at most.
    pub max_nodes: usize,
    /// Tags that two memories must share to be joined; `None`: tags join nothing.
    pub shared_min: Option<usize>,
}

/// What joins two nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Join {
    /// The second replies to the first.
    ParentOf,
    /// They have so many tags in common.
    SharedTags(usize),
}

/// See the module text.
#[derive(Debug)]
pub struct Graph {
    /// Newest first, opened without content.
    pub nodes: Vec<Memory>,
    /// By node: its live replies.
    pub replies: Vec<u64>,
    /// By node: the cluster that it shares most tags with.
    pub of: Vec<Option<usize>>,
    /// Places of two nodes, and what joins them.
    pub edges: Vec<(usize, usize, Join)>,
    /// Those of most nodes first.
    pub topics: Vec<Topic>,
    /// Whether nodes or edges are missing.
    pub truncated: bool,
}

/// The graph of the granted memories.
pub fn graph<A: Reads + Action<Target = Scope>>(a: &mut Access<'_, A>, ask: &Ask) -> Result<Graph, Refusal> {
    let since = ask.days.map_or(0, |days| a.now().ms().saturating_sub(days.saturating_mul(86_400_000)));
    let mut ids = Vec::new();
    for id in table::page(a, State::Live, 0, ask.max_nodes + 1)? {
        match table::seen(a, id)? {
            Some(written) if written.ms() < since => break,
            Some(_) => ids.push(id),
            None => {}
        }
    }
    let mut truncated = ids.len() > ask.max_nodes;
    ids.truncate(ask.max_nodes);
    let nodes = table::several(a, ids, Part::Summary, State::Live)?;
    table::answer(a, &nodes);
    a.detail(Detail::Hits(table::total(a, State::Live)?));

    let tags: Vec<Vec<&str>> = nodes.iter().map(|node| node.text.tags.iter().map(|tag| tag.expose(a)).collect()).collect();
    let found = clusters::clusters(&tags);
    let of = tags.iter().map(|tags| nearest(tags, &found)).collect();
    let topics = found.iter().map(Topic::from).collect();

    let place: HashMap<MemoryId, usize> = nodes.iter().enumerate().map(|(at, node)| (node.id, at)).collect();
    let (mut edges, mut replies) = (Vec::new(), vec![0; nodes.len()]);
    for (at, node) in nodes.iter().enumerate() {
        if let Some(&parent) = node.parent.as_ref().and_then(|parent| place.get(parent)) {
            edges.push((parent, at, Join::ParentOf));
            replies[parent] += 1;
        }
    }
    if let Some(least) = ask.shared_min {
        let mut shared = pairs(&tags, least);
        // Stable: among equals those between the newest come first.
        order::sort_by_key(&mut shared, |(.., count)| std::cmp::Reverse(*count));
        truncated |= shared.len() > limits::GRAPH_EDGES_MAX;
        edges.extend(shared.into_iter().take(limits::GRAPH_EDGES_MAX).map(|(one, other, count)| (one, other, Join::SharedTags(count))));
    }
    drop(tags);
    Ok(Graph { nodes, replies, of, edges, topics, truncated })
}

/// The cluster that holds most of these tags; of equals the first.
fn nearest(tags: &[&str], clusters: &[Cluster<'_>]) -> Option<usize> {
    let mut best: Option<(usize, usize)> = None;
    for (at, cluster) in clusters.iter().enumerate() {
        let held = tags.iter().filter(|tag| cluster.tags.binary_search(tag).is_ok()).count();
        if held > best.map_or(0, |(held, _)| held) {
            best = Some((held, at));
        }
    }
    best.map(|(_, at)| at)
}

/// All pairs of memories with at least `least` tags in common, and how many: at most 2,000 memories with 50 tags each.
fn pairs(tags: &[Vec<&str>], least: usize) -> Vec<(usize, usize, usize)> {
    let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
    let mut numbered: Vec<Vec<u32>> = Vec::with_capacity(tags.len());
    for tags in tags {
        let mut mine: Vec<u32> = Vec::with_capacity(tags.len());
        for tag in tags {
            let next = u32::try_from(numbers.len()).expect("a graph has fewer than 2^32 tags");
            mine.push(*numbers.entry(tag).or_insert(next));
        }
        mine.sort_unstable();
        mine.dedup();
        numbered.push(mine);
    }
    let mut found = Vec::new();
    for (one, mine) in numbered.iter().enumerate().filter(|(_, mine)| mine.len() >= least) {
        for (other, theirs) in numbered.iter().enumerate().skip(one + 1) {
            let count = common(mine, theirs);
            if count >= least {
                found.push((one, other, count));
            }
        }
    }
    found
}

/// How many numbers two ascending lists have in common.
fn common(mut a: &[u32], mut b: &[u32]) -> usize {
    let mut count = 0;
    while let ([x, left @ ..], [y, right @ ..]) = (a, b) {
        match x.cmp(y) {
            std::cmp::Ordering::Less => a = left,
            std::cmp::Ordering::Greater => b = right,
            std::cmp::Ordering::Equal => (a, b, count) = (left, right, count + 1),
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_those_with_enough_tags_in_common() {
        let tags = vec![vec!["a", "b", "c"], vec!["b", "a"], vec!["c"], vec![], vec!["c", "a", "b", "b"]];
        assert_eq!(pairs(&tags, 2), [(0, 1, 2), (0, 4, 3), (1, 4, 2)]);
        assert_eq!(pairs(&tags, 1).len(), 5);
        assert!(pairs(&tags, 4).is_empty() && pairs(&[], 1).is_empty());
    }

    #[test]
    fn a_memory_belongs_to_the_cluster_that_holds_most_of_its_tags() {
        let cluster = |tags: &[&'static str]| Cluster { tags: tags.to_vec(), memories: 1, weight: 1 };
        let clusters = [cluster(&["a", "b", "c"]), cluster(&["x", "y", "z"])];
        assert_eq!(nearest(&["a", "x", "y"], &clusters), Some(1));
        assert_eq!(nearest(&["a", "x"], &clusters), Some(0));
        assert_eq!(nearest(&["q"], &clusters), None);
    }
}
