//! Clusters: communities of tags that stand on the same memories.
//!
//! Two tags are joined by as many memories as carry both. Communities are those of greatest modularity that the Louvain method finds: each tag
//! in turn moves to the neighbouring community that gains most, until none moves; communities become the nodes of the next level.
//!
//! Invariants
//! - The same memories in any order give the same clusters: tags are taken in byte order, equal gains leave a tag where it is, and the sums are
//!   whole numbers.
//! - A tag is in one cluster at most; a cluster has at least [`limits::CLUSTER_TAGS_MIN`] tags.
//!
//! Source: Blondel, Guillaume, Lambiotte, Lefebvre, "Fast unfolding of communities in large networks" (2008).

use std::collections::{BTreeMap, BTreeSet};

use crate::base::{hex, limits, order};
use crate::crypto::hash::sha256;
use crate::store::phi::Phi;

/// Some tags, and how they hang together.
pub struct Cluster<'t> {
    /// In byte order.
    pub tags: Vec<&'t str>,
    /// Memories that carry one of them.
    pub memories: u64,
    /// Over all pairs of them: the memories that carry both.
    pub weight: u64,
}

impl Cluster<'_> {
    /// Sixteen hex digits that stay as long as its tags do: the beginning of SHA-256 of the tags joined by `|`.
    pub fn id(&self) -> String {
        hex::encode(&sha256(&[self.tags.join("|").as_bytes()])[..8])
    }

    /// Its first three tags, joined by `/`.
    pub fn name(&self) -> String {
        self.tags.iter().take(3).copied().collect::<Vec<_>>().join("/")
    }

    /// One sentence.
    pub fn description(&self) -> String {
        format!("{} {} about {}", self.memories, if self.memories == 1 { "memory" } else { "memories" }, self.tags.join(", "))
    }
}

/// A cluster that leaves the view it was made of: an answer's, or a briefing's.
#[derive(Debug)]
pub struct Topic {
    /// [`Cluster::id`].
    pub id: Phi,
    /// [`Cluster::name`].
    pub name: Phi,
    /// [`Cluster::description`].
    pub description: Phi,
    /// In byte order.
    pub tags: Vec<Phi>,
    /// Memories that carry one of them.
    pub memories: u64,
    /// How strongly they hang together.
    pub weight: u64,
}

impl From<&Cluster<'_>> for Topic {
    fn from(cluster: &Cluster<'_>) -> Self {
        Self {
            id: Phi::new(cluster.id()),
            name: Phi::new(cluster.name()),
            description: Phi::new(cluster.description()),
            tags: cluster.tags.iter().map(|tag| Phi::new((*tag).to_owned())).collect(),
            memories: cluster.memories,
            weight: cluster.weight,
        }
    }
}

/// The clusters of the tags of these memories, those of most memories first, then by their tags.
pub fn clusters<'t>(memories: &[Vec<&'t str>]) -> Vec<Cluster<'t>> {
    let memories: Vec<BTreeSet<&'t str>> =
        memories.iter().map(|tags| tags.iter().take(limits::CLUSTER_TAGS_MAX).copied().collect()).collect();
    let tags: Vec<&'t str> = memories.iter().flatten().copied().collect::<BTreeSet<_>>().into_iter().collect();
    let number = |tag: &&str| tags.binary_search(tag).expect("every tag is among all of them");
    let mut pairs: BTreeMap<(usize, usize), u64> = BTreeMap::new();
    for carried in &memories {
        let carried: Vec<usize> = carried.iter().map(number).collect();
        for (at, a) in carried.iter().enumerate() {
            for b in &carried[at + 1..] {
                *pairs.entry((*a, *b)).or_default() += 1;
            }
        }
    }
    let community = communities(tags.len(), &pairs);
    let mut found: BTreeMap<usize, Cluster<'t>> = BTreeMap::new();
    for (tag, community) in tags.iter().zip(&community) {
        found.entry(*community).or_insert(Cluster { tags: Vec::new(), memories: 0, weight: 0 }).tags.push(tag);
    }
    found.retain(|_, cluster| cluster.tags.len() >= limits::CLUSTER_TAGS_MIN);
    for carried in &memories {
        let touched: BTreeSet<usize> = carried.iter().map(|tag| community[number(tag)]).collect();
        for of in touched {
            if let Some(cluster) = found.get_mut(&of) {
                cluster.memories += 1;
            }
        }
    }
    for ((a, b), weight) in &pairs {
        if let (true, Some(cluster)) = (community[*a] == community[*b], found.get_mut(&community[*a])) {
            cluster.weight += weight;
        }
    }
    let mut found: Vec<_> = found.into_values().collect();
    order::sort_by(&mut found, |a, b| b.memories.cmp(&a.memories).then_with(|| a.tags.cmp(&b.tags)));
    found
}

/// One level's graph.
struct Graph {
    /// By node: neighbours and weights.
    edges: Vec<Vec<(usize, u64)>>,
    /// By node: the weights of its edges, those within it twice.
    degree: Vec<u64>,
}

/// The community of each of `nodes`, by a number of no meaning.
fn communities(nodes: usize, pairs: &BTreeMap<(usize, usize), u64>) -> Vec<usize> {
    let mut graph = Graph { edges: vec![Vec::new(); nodes], degree: vec![0; nodes] };
    for (&(a, b), &weight) in pairs {
        graph.edges[a].push((b, weight));
        graph.edges[b].push((a, weight));
        graph.degree[a] += weight;
        graph.degree[b] += weight;
    }
    let mut of: Vec<usize> = (0..nodes).collect();
    for _ in 0..limits::CLUSTER_ROUNDS_MAX {
        let before = graph.degree.len();
        let (moved, kept) = numbered(&settle(&graph));
        of.iter_mut().for_each(|community| *community = moved[*community]);
        if kept == before {
            break;
        }
        graph = joined(&graph, &moved, kept);
    }
    of
}

/// Moves each node to the community that gains most, until none moves.
fn settle(graph: &Graph) -> Vec<usize> {
    let mut of: Vec<usize> = (0..graph.degree.len()).collect();
    let (mut sums, all) = (graph.degree.clone(), i128::from(graph.degree.iter().sum::<u64>()));
    for _ in 0..limits::CLUSTER_ROUNDS_MAX {
        let mut moved = false;
        for node in 0..of.len() {
            let (here, degree) = (of[node], graph.degree[node]);
            let mut joined: BTreeMap<usize, u64> = BTreeMap::new();
            for &(other, weight) in &graph.edges[node] {
                *joined.entry(of[other]).or_default() += weight;
            }
            sums[here] -= degree;
            // Modularity, times the square of all weights: whole numbers.
            let gain = |to: usize, weight: u64| i128::from(weight) * all - i128::from(sums[to]) * i128::from(degree);
            let mut best = (gain(here, joined.get(&here).copied().unwrap_or(0)), here);
            for (&to, &weight) in &joined {
                let gained = gain(to, weight);
                if gained > best.0 {
                    best = (gained, to);
                }
            }
            moved |= best.1 != here;
            of[node] = best.1;
            sums[best.1] += degree;
        }
        if !moved {
            break;
        }
    }
    of
}

/// The same communities under numbers without gaps, in the same order, and how many there are.
fn numbered(of: &[usize]) -> (Vec<usize>, usize) {
    let kept: Vec<usize> = of.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    (of.iter().map(|community| kept.binary_search(community).expect("every community is among them")).collect(), kept.len())
}

/// The graph whose nodes are the `kept` communities of `graph`.
fn joined(graph: &Graph, of: &[usize], kept: usize) -> Graph {
    let mut weights: Vec<BTreeMap<usize, u64>> = vec![BTreeMap::new(); kept];
    let mut degree = vec![0; kept];
    for (node, edges) in graph.edges.iter().enumerate() {
        let own = of[node];
        degree[own] += graph.degree[node];
        for (other, weight) in edges {
            let other = of[*other];
            if other != own {
                *weights[own].entry(other).or_default() += weight;
            }
        }
    }
    Graph { edges: weights.into_iter().map(|edges| edges.into_iter().collect()).collect(), degree }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two circles of tags that one memory joins.
    fn wards() -> Vec<Vec<&'static str>> {
        vec![
            vec!["insulin", "glucose", "diet"],
            vec!["diet", "insulin"],
            vec!["glucose", "insulin", "diet"],
            vec!["gait", "fall", "stick"],
            vec!["stick", "gait"],
            vec!["fall", "gait", "stick"],
            vec!["diet", "gait"],
            vec!["alone"],
            vec![],
        ]
    }

    #[test]
    fn tags_that_stand_together_are_one_cluster() {
        let memories = wards();
        let found = clusters(&memories);
        let tags: Vec<_> = found.iter().map(|cluster| cluster.tags.clone()).collect();
        assert_eq!(tags, [["diet", "glucose", "insulin"], ["fall", "gait", "stick"]]);
        assert_eq!((found[0].memories, found[0].weight), (4, 7));
        assert_eq!(found[0].name(), "diet/glucose/insulin");
        assert_eq!(found[0].id(), hex::encode(&sha256(&[b"diet|glucose|insulin"]))[..16]);
        assert!(found[0].description().starts_with("4 memories about diet"));
    }

    #[test]
    fn the_order_of_memories_and_of_their_tags_changes_nothing() {
        let mut memories = wards();
        let told = |memories: &[Vec<&'static str>]| clusters(memories).iter().map(|c| (c.id(), c.memories, c.weight)).collect::<Vec<_>>();
        let before = told(&memories);
        memories.reverse();
        memories.iter_mut().for_each(|tags| tags.reverse());
        assert_eq!(told(&memories), before);
    }

    #[test]
    fn two_tags_are_no_cluster_and_nothing_has_none() {
        assert!(clusters(&[vec!["a", "b"], vec!["a", "b"]]).is_empty());
        assert!(clusters(&[]).is_empty());
        assert!(clusters(&[vec!["a", "a", "a"]]).is_empty());
    }

    #[test]
    fn a_ring_of_cliques_falls_apart_into_its_cliques() {
        let names: Vec<String> = (0..32).map(|n| format!("t{n:02}")).collect();
        let mut memories: Vec<Vec<&str>> = names.chunks(4).map(|clique| clique.iter().map(String::as_str).collect()).collect();
        memories.extend((0..8).map(|n| vec![names[n * 4].as_str(), names[(n * 4 + 5) % 32].as_str()]));
        let found = clusters(&memories);
        assert_eq!(found.iter().map(|cluster| cluster.tags.len()).sum::<usize>(), 32);
        assert!(found.iter().all(|cluster| cluster.tags.len() % 4 == 0), "no clique is torn");
    }
}
