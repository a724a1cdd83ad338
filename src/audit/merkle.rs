//! The log's Merkle tree: RFC 6962, stored in the shape of C2SP tlog-tiles.
//!
//! ```text
//! leaf = SHA-256(0x00 | line)      node = SHA-256(0x01 | left | right)      empty tree = SHA-256("")
//! tile (level k, index t) = the 256 nodes of height 8k whose indexes begin at 256 t; stored once, when its last node is known
//! ```
//!
//! Invariants
//! - Stored are full tiles alone; what is not in one follows from the newest at most 255 lines ([`Tree`], [`Appender::load`]).
//! - An [`Appender`] never fails and never reads: a batch works on a clone, which replaces the original once its commit is durable.
//! - Proofs are made from tiles and checked from values alone; a checker takes any bytes and never panics.
//!
//! Range proofs are our own generalisation: the roots of everything left and right of a run of lines, in the order in which RFC 6962
//! section 2.1 splits the tree. A run that is the whole log has an empty proof.

use crate::crypto::hash::sha256;

/// A hash of the tree.
pub type Hash = [u8; 32];
/// Nodes in one stored tile.
pub const TILE_HASHES: usize = 256;
/// Bytes of one stored tile.
pub const TILE_BYTES: usize = TILE_HASHES * 32;
/// Heights that one tile spans.
const TILE_HEIGHT: u32 = 8;

/// Lines up to here are hashed at once, from the stack: otherwise memory is asked for each time.
const SHORT_LINE_BYTES: usize = 1023;

/// Hash of a leaf: of one entry's line, without a line end.
pub fn leaf_hash(line: &[u8]) -> Hash {
    let mut leaf = [0; 1 + SHORT_LINE_BYTES];
    match leaf.get_mut(1..=line.len()) {
        Some(room) => room.copy_from_slice(line),
        None => return sha256(&[&[0], line]),
    }
    sha256(&[&leaf[..=line.len()]])
}

/// Hash of the node above `left` and `right`.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut node = [1; 65];
    node[1..33].copy_from_slice(left);
    node[33..].copy_from_slice(right);
    sha256(&[&node])
}

/// Root of the empty tree.
pub fn empty_root() -> Hash {
    sha256(&[])
}

/// Where RFC 6962 splits a tree of `n` leaves, `n` at least 2: the largest power of two below `n`.
fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

/// Root of a perfect subtree from its leaves (a power of two of them).
fn perfect_root(mut hashes: Vec<Hash>) -> Hash {
    while hashes.len() > 1 {
        hashes = hashes.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
    }
    hashes[0]
}

/// A run of consecutive leaves, kept as the roots of its largest perfect subtrees, left to right (at most 128 of them).
#[derive(Clone, Debug)]
pub struct Span {
    first: u64,
    end: u64,
    roots: Vec<(u32, Hash)>,
}

impl Span {
    /// An empty run that begins at leaf `first`.
    pub fn starting(first: u64) -> Self {
        Self { first, end: first, roots: Vec::new() }
    }

    /// Index of the first leaf.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Index after the last leaf.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Adds the next leaf and tells `made` each node that it completes, as (height, hash), lowest first, the leaf among them.
    pub fn push(&mut self, leaf: Hash, mut made: impl FnMut(u32, Hash)) {
        let (mut height, mut node) = (0, leaf);
        made(height, node);
        while (self.end >> height) & 1 == 1 && self.roots.last().is_some_and(|&(top, _)| top == height) {
            let (_, left) = self.roots.pop().expect("the loop's condition saw it");
            node = node_hash(&left, &node);
            height += 1;
            made(height, node);
        }
        self.roots.push((height, node));
        self.end += 1;
    }

    /// Root of the tree of `size` leaves of which this run is a part and `proof` is all the rest ([`Tree::range`]).
    ///
    /// `None` if the run does not lie within `size` or `proof` has not exactly the needed length.
    pub fn root(&self, size: u64, proof: &[Hash]) -> Option<Hash> {
        if self.end > size {
            return None;
        }
        if size == 0 {
            return proof.is_empty().then(empty_root);
        }
        let (mut rest, mut roots) = (proof.iter(), self.roots.iter());
        let root = self.assemble(0, size, &mut rest, &mut roots)?;
        (rest.next().is_none() && roots.next().is_none()).then_some(root)
    }

    fn assemble<'a>(
        &self,
        from: u64,
        to: u64,
        rest: &mut impl Iterator<Item = &'a Hash>,
        roots: &mut impl Iterator<Item = &'a (u32, Hash)>,
    ) -> Option<Hash> {
        if to <= self.first || from >= self.end {
            return rest.next().copied();
        }
        if from >= self.first && to <= self.end && (to - from).is_power_of_two() {
            // INVARIANT: subtrees are met here from the top and left to right, so they are the largest, in the order of `roots`.
            return roots.next().filter(|(height, _)| *height == (to - from).ilog2()).map(|(_, root)| *root);
        }
        let middle = from + split(to - from);
        let left = self.assemble(from, middle, rest, roots)?;
        Some(node_hash(&left, &self.assemble(middle, to, rest, roots)?))
    }
}

/// A tile that has just become full and must be stored in the batch that stores its last leaf.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FullTile {
    /// Tile level: its hashes are nodes of height `8 * level`.
    pub level: u8,
    /// Place among the tiles of its level.
    pub index: u64,
    /// The hashes, [`TILE_BYTES`] long.
    pub bytes: Vec<u8>,
}

/// The growing end of the tree: size, root and unfilled tiles; a few KiB, so a clone per batch is cheap.
#[derive(Clone, Debug)]
pub struct Appender {
    span: Span,
    unfilled: Vec<Vec<Hash>>,
}

impl Default for Appender {
    fn default() -> Self {
        Self { span: Span::starting(0), unfilled: Vec::new() }
    }
}

impl Appender {
    /// The appender of an empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// The appender that stood at the end of `tree`; reads at most 255 tiles a level.
    ///
    /// Errors: those of [`Tree::node`].
    pub fn load<T: Tiles>(tree: &Tree<'_, T>) -> Result<Self, TreeError<T::Error>> {
        let mut appender = Self::default();
        appender.span.end = tree.size;
        for height in (0..u64::BITS).step_by(8).take_while(|height| tree.size >> height > 0) {
            let end = tree.size >> height;
            let nodes = (end & !0xff..end).map(|index| tree.node(height, index)).collect::<Result<Vec<_>, _>>()?;
            let (mut rest, mut roots) = (&nodes[..], Vec::new());
            for below in (0..TILE_HEIGHT).rev().filter(|below| end >> below & 1 == 1) {
                let (perfect, right) = rest.split_at(1 << below);
                roots.push((height + below, perfect_root(perfect.to_vec())));
                rest = right;
            }
            appender.span.roots.splice(..0, roots);
            appender.unfilled.push(nodes);
        }
        Ok(appender)
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.span.end
    }

    /// Root of the tree as it stands; costs about log2(size) hashes.
    pub fn root(&self) -> Hash {
        self.span.root(self.span.end, &[]).expect("a run from 0 to its end is the whole tree")
    }

    /// Adds `leaf` (of [`leaf_hash`]); tiles that it fills are pushed to `full`. Gives the leaf's index.
    pub fn append(&mut self, leaf: Hash, full: &mut Vec<FullTile>) -> u64 {
        let (index, unfilled) = (self.span.end, &mut self.unfilled);
        self.span.push(leaf, |height, node| {
            if height % TILE_HEIGHT != 0 {
                return;
            }
            let level = height / TILE_HEIGHT;
            let at = usize::try_from(level).expect("a tree has at most 8 tile levels");
            if unfilled.len() <= at {
                unfilled.push(Vec::with_capacity(TILE_HASHES));
            }
            unfilled[at].push(node);
            if unfilled[at].len() == TILE_HASHES {
                let level = u8::try_from(level).expect("a tree has at most 8 tile levels");
                full.push(FullTile { level, index: index >> (height + TILE_HEIGHT), bytes: unfilled[at].concat() });
                unfilled[at].clear();
            }
        });
        index
    }
}

/// Stored full tiles.
pub trait Tiles {
    /// Why a tile cannot be read.
    type Error;

    /// The bytes of a full tile as [`FullTile::bytes`] gave them. Asked only for tiles that lie wholly within the log.
    fn tile(&self, level: u8, index: u64) -> Result<Vec<u8>, Self::Error>;
}

/// Why a node or proof cannot be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError<E> {
    /// The store's own error.
    #[error("a tile cannot be read")]
    Store(E),
    /// The store gave something that is not a tile: the log is damaged.
    #[error("audit tile {index} of level {level} has not {TILE_BYTES} bytes")]
    Damaged {
        /// Tile level.
        level: u8,
        /// Place in its level.
        index: u64,
    },
    /// Asked for something outside the tree.
    #[error("asked for a part of the audit log that does not exist")]
    Outside,
}

/// A log of `size` leaves for reading: full tiles, and the hashes that lie in none.
pub struct Tree<'a, T> {
    tiles: &'a T,
    size: u64,
    /// Hashes of the unfilled tile of each level, the leaves' at least; of levels beyond, they are made from full tiles below.
    unfilled: Vec<Vec<Hash>>,
}

impl<'a, T: Tiles> Tree<'a, T> {
    /// The log in `tiles` and `tail`, the hashes of the last `size % 256` leaves, in order; `None` if there is another number of them.
    pub fn new(tiles: &'a T, size: u64, tail: Vec<Hash>) -> Option<Self> {
        (u64::try_from(tail.len()) == Ok(size % 256)).then(|| Self { tiles, size, unfilled: vec![tail] })
    }

    /// The log as `end` left it, in `tiles`: proofs then read about two tiles a level, where [`Tree::new`] may read 255.
    pub fn at(tiles: &'a T, end: &Appender) -> Self {
        Self { tiles, size: end.size(), unfilled: end.unfilled.clone() }
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The node of `height` at `index` among those of its height; all its leaves must exist.
    ///
    /// Errors: `Outside` if they do not; `Store` and `Damaged` from reading tiles.
    pub fn node(&self, height: u32, index: u64) -> Result<Hash, TreeError<T::Error>> {
        if height >= u64::BITS || index >= self.size >> height {
            return Err(TreeError::Outside);
        }
        let below = height % TILE_HEIGHT;
        let (level, first) = (height / TILE_HEIGHT, index << below);
        let place = usize::try_from(first % 256).expect("below 256");
        let wanted = place..place + (1 << below);
        let is_full = first / 256 < self.size >> (TILE_HEIGHT * level) >> TILE_HEIGHT;
        let hashes = if is_full {
            self.tile(level, first / 256)?[wanted].to_vec()
        } else if let Some(hashes) = usize::try_from(level).ok().and_then(|level| self.unfilled.get(level)) {
            hashes[wanted].to_vec()
        } else {
            let roots = (first..first + (1 << below)).map(|index| Ok(perfect_root(self.tile(level - 1, index)?)));
            roots.collect::<Result<_, TreeError<T::Error>>>()?
        };
        Ok(perfect_root(hashes))
    }

    fn tile(&self, level: u32, index: u64) -> Result<Vec<Hash>, TreeError<T::Error>> {
        let level = u8::try_from(level).expect("a tree has at most 8 tile levels");
        let bytes = self.tiles.tile(level, index).map_err(TreeError::Store)?;
        let (hashes, rest) = bytes.as_chunks::<32>();
        if hashes.len() != TILE_HASHES || !rest.is_empty() {
            return Err(TreeError::Damaged { level, index });
        }
        Ok(hashes.to_vec())
    }

    /// MTH(D[from:to]) of RFC 6962 section 2.1, for ranges that its recursion meets.
    fn subtree(&self, from: u64, to: u64) -> Result<Hash, TreeError<T::Error>> {
        let n = to - from;
        if n.is_power_of_two() {
            return self.node(n.ilog2(), from >> n.ilog2());
        }
        let middle = from + split(n);
        Ok(node_hash(&self.subtree(from, middle)?, &self.subtree(middle, to)?))
    }

    /// Root of the tree of the first `size` leaves.
    ///
    /// Errors: `Outside` if there are fewer.
    pub fn root(&self, size: u64) -> Result<Hash, TreeError<T::Error>> {
        match size {
            0 => Ok(empty_root()),
            _ if size > self.size => Err(TreeError::Outside),
            _ => self.subtree(0, size),
        }
    }

    /// Proof that leaf `index` is in the tree of the first `size` leaves: PATH of RFC 6962 section 2.1.1.
    ///
    /// Errors: `Outside` unless `index < size <= self.size()`.
    pub fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Hash>, TreeError<T::Error>> {
        if index >= size || size > self.size {
            return Err(TreeError::Outside);
        }
        let (mut from, mut to, mut path) = (0, size, Vec::new());
        while to - from > 1 {
            let middle = from + split(to - from);
            if index < middle {
                path.push(self.subtree(middle, to)?);
                to = middle;
            } else {
                path.push(self.subtree(from, middle)?);
                from = middle;
            }
        }
        path.reverse();
        Ok(path)
    }

    /// Proof that the tree of the first `old` leaves is a prefix of that of the first `new`: PROOF of RFC 6962 section 2.1.2.
    /// Empty where there is nothing to prove (`old` is 0 or `new`).
    ///
    /// Errors: `Outside` unless `old <= new <= self.size()`.
    pub fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash>, TreeError<T::Error>> {
        if old > new || new > self.size {
            return Err(TreeError::Outside);
        }
        if old == 0 || old == new {
            return Ok(Vec::new());
        }
        let (mut from, mut to, mut proof) = (0, new, Vec::new());
        while to != old {
            let middle = from + split(to - from);
            if old <= middle {
                proof.push(self.subtree(middle, to)?);
                to = middle;
            } else {
                proof.push(self.subtree(from, middle)?);
                from = middle;
            }
        }
        if from > 0 {
            proof.push(self.subtree(from, to)?);
        }
        proof.reverse();
        Ok(proof)
    }

    /// Proof that leaves `first..end` are those of the tree of the first `size` leaves; checked by [`Span::root`].
    ///
    /// Errors: `Outside` unless `first <= end <= size <= self.size()`.
    pub fn range(&self, first: u64, end: u64, size: u64) -> Result<Vec<Hash>, TreeError<T::Error>> {
        if first > end || end > size || size > self.size {
            return Err(TreeError::Outside);
        }
        let mut proof = Vec::new();
        if size > 0 {
            self.outside(first, end, 0, size, &mut proof)?;
        }
        Ok(proof)
    }

    fn outside(&self, first: u64, end: u64, from: u64, to: u64, proof: &mut Vec<Hash>) -> Result<(), TreeError<T::Error>> {
        if to <= first || from >= end {
            proof.push(self.subtree(from, to)?);
        } else if from < first || to > end {
            let middle = from + split(to - from);
            self.outside(first, end, from, middle, proof)?;
            self.outside(first, end, middle, to, proof)?;
        }
        Ok(())
    }
}

/// Whether `proof` shows `leaf` at `index` of the tree with `size` leaves and `root`. Source: RFC 9162 section 2.1.3.2.
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last, mut node) = (index, size - 1, *leaf);
    for hash in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            node = node_hash(hash, &node);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            node = node_hash(&node, hash);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && node == *root
}

/// Whether `proof` shows that the tree (`old`, `old_root`) is a prefix of (`new`, `new_root`). Source: RFC 9162 section 2.1.4.2.
pub fn verify_consistency(old: u64, old_root: &Hash, new: u64, new_root: &Hash, proof: &[Hash]) -> bool {
    if old > new {
        return false;
    }
    if old == new {
        return proof.is_empty() && old_root == new_root && (old > 0 || *old_root == empty_root());
    }
    if old == 0 {
        return proof.is_empty() && *old_root == empty_root();
    }
    let mut rest = proof.iter();
    let first = if old.is_power_of_two() { Some(old_root) } else { rest.next() };
    let Some(first) = first else { return false };
    let (mut at, mut last) = (old - 1, new - 1);
    while at & 1 == 1 {
        (at, last) = (at >> 1, last >> 1);
    }
    let (mut old_node, mut new_node) = (*first, *first);
    for hash in rest {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            old_node = node_hash(hash, &old_node);
            new_node = node_hash(hash, &new_node);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            new_node = node_hash(&new_node, hash);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && old_node == *old_root && new_node == *new_root
}

#[cfg(test)]
pub mod tests {
    use std::collections::HashMap;

    /// Tiles of a tree that is too small to have any.
    pub struct NoTiles;
    impl Tiles for NoTiles {
        type Error = std::convert::Infallible;
        fn tile(&self, _: u8, _: u64) -> Result<Vec<u8>, Self::Error> {
            Ok(Vec::new())
        }
    }

    use ct_merkle::digest;
    use serde_json::Value;

    use super::*;
    use crate::base::hex;

    /// A store of full tiles, and an appender beside it.
    #[derive(Default)]
    struct Log {
        tiles: HashMap<(u8, u64), Vec<u8>>,
        leaves: Vec<Hash>,
        appender: Appender,
    }

    impl Tiles for HashMap<(u8, u64), Vec<u8>> {
        type Error = ();

        fn tile(&self, level: u8, index: u64) -> Result<Vec<u8>, ()> {
            self.get(&(level, index)).cloned().ok_or(())
        }
    }

    impl Log {
        fn of(lines: impl IntoIterator<Item = Vec<u8>>) -> Self {
            let mut log = Self::default();
            lines.into_iter().for_each(|line| log.push(leaf_hash(&line)));
            log
        }

        fn numbered(size: u64) -> Self {
            Self::of((0..size).map(|i| i.to_be_bytes().to_vec()))
        }

        fn push(&mut self, leaf: Hash) {
            let mut full = Vec::new();
            self.appender.append(leaf, &mut full);
            self.leaves.push(leaf);
            for tile in full {
                assert_eq!(tile.bytes.len(), TILE_BYTES);
                assert_eq!(self.tiles.insert((tile.level, tile.index), tile.bytes), None, "a tile is stored once");
            }
        }

        fn tree(&self) -> Tree<'_, HashMap<(u8, u64), Vec<u8>>> {
            let tail = self.leaves[self.leaves.len() / 256 * 256..].to_vec();
            Tree::new(&self.tiles, self.leaves.len() as u64, tail).unwrap()
        }
    }

    /// SHA-256 in the shape that `ct-merkle` asks for.
    #[derive(Clone)]
    struct Sha(aws_lc_rs::digest::Context);

    impl Default for Sha {
        fn default() -> Self {
            Self(aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256))
        }
    }
    impl digest::HashMarker for Sha {}
    impl digest::OutputSizeUser for Sha {
        type OutputSize = digest::consts::U32;
    }
    impl digest::Update for Sha {
        fn update(&mut self, data: &[u8]) {
            self.0.update(data);
        }
    }
    impl digest::FixedOutput for Sha {
        fn finalize_into(self, out: &mut digest::Output<Self>) {
            out.copy_from_slice(self.0.finish().as_ref());
        }
    }

    type Oracle = ct_merkle::mem_backed_tree::MemoryBackedTree<Sha, [u8; 8]>;

    /// MTH of RFC 6962 section 2.1, word for word.
    fn mth(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => sha256(&[]),
            [leaf] => *leaf,
            _ => {
                let k = leaves.len().next_power_of_two() / 2;
                node_hash(&mth(&leaves[..k]), &mth(&leaves[k..]))
            }
        }
    }

    fn hash(value: &Value) -> Hash {
        hex::decode(value.as_str().unwrap()).unwrap().try_into().unwrap()
    }

    fn hashes(value: &Value) -> Vec<Hash> {
        value.as_array().unwrap().iter().map(hash).collect()
    }

    #[test]
    fn a_hash_is_the_same_however_long_the_line() {
        for len in [0, 1, 517, 1022, 1023, 1024, 5000] {
            let line = vec![b'x'; len];
            assert_eq!(leaf_hash(&line), sha256(&[&[0], &line]), "{len}");
        }
        assert_eq!(node_hash(&[3; 32], &[4; 32]), sha256(&[&[1], &[3; 32], &[4; 32]]));
    }

    #[test]
    fn the_published_tree_has_its_roots_and_proofs() {
        let vector: Value = serde_json::from_str(include_str!("../../tests/vectors/rfc6962/ct.json")).unwrap();
        let lines = vector["leaves"].as_array().unwrap().iter().map(|leaf| hex::decode(leaf.as_str().unwrap()).unwrap());
        let (log, roots) = (Log::of(lines), hashes(&vector["roots"]));
        let tree = log.tree();
        for (size, root) in (0..).zip(&roots) {
            assert_eq!(tree.root(size), Ok(*root));
        }
        for case in vector["inclusion"].as_array().unwrap() {
            let (index, size) = (case["index"].as_u64().unwrap(), case["size"].as_u64().unwrap());
            assert_eq!(tree.inclusion(index, size), Ok(hashes(&case["proof"])));
        }
        for case in vector["consistency"].as_array().unwrap() {
            let (old, new) = (case["old"].as_u64().unwrap(), case["new"].as_u64().unwrap());
            assert_eq!(tree.consistency(old, new), Ok(hashes(&case["proof"])));
        }
    }

    #[test]
    fn every_proof_of_every_small_tree_holds_and_no_changed_one_does() {
        const N: u64 = 20;
        let log = Log::numbered(N);
        let (tree, leaves) = (log.tree(), &log.leaves);
        let roots: Vec<Hash> = (0..=leaves.len()).map(|size| mth(&leaves[..size])).collect();
        let root = |size: u64| &roots[size as usize];
        // A changed proof: each hash flipped, one dropped, one added.
        let changes = |proof: &[Hash]| {
            let flipped = (0..proof.len()).map(|i| {
                let mut proof = proof.to_vec();
                proof[i][0] ^= 1;
                proof
            });
            let longer = [proof, &[[0; 32]]].concat();
            let shorter = proof.split_last().map(|(_, rest)| rest.to_vec());
            flipped.chain([longer]).chain(shorter).collect::<Vec<_>>()
        };
        for size in 0..=N {
            assert_eq!(tree.root(size).as_ref(), Ok(root(size)));
            for index in 0..size {
                let (proof, leaf) = (tree.inclusion(index, size).unwrap(), &leaves[index as usize]);
                assert!(verify_inclusion(leaf, index, size, &proof, root(size)));
                assert!(!verify_inclusion(&[0; 32], index, size, &proof, root(size)));
                for other in (0..=N + 1).filter(|other| *other != index) {
                    assert!(!verify_inclusion(leaf, other, size, &proof, root(size)), "{index} as {other} of {size}");
                }
                assert!(changes(&proof).iter().all(|proof| !verify_inclusion(leaf, index, size, proof, root(size))));
            }
            for old in 0..=size {
                let proof = tree.consistency(old, size).unwrap();
                assert!(verify_consistency(old, root(old), size, root(size), &proof), "{old} to {size}");
                assert!(!verify_consistency(old, &[0; 32], size, root(size), &proof));
                assert!(old == 0 || !verify_consistency(old, root(old), size, &[0; 32], &proof));
                assert!(changes(&proof).iter().all(|proof| !verify_consistency(old, root(old), size, root(size), proof)));

                let range = tree.range(old, size, N).unwrap();
                let mut span = Span::starting(old);
                leaves[old as usize..size as usize].iter().for_each(|leaf| span.push(*leaf, |_, _| {}));
                assert_eq!(span.root(N, &range).as_ref(), Some(root(N)), "{old}..{size}");
                assert!(changes(&range).iter().all(|proof| span.root(N, proof).as_ref() != Some(root(N))));
                assert_eq!(range.is_empty(), (old, size) == (0, N));
            }
        }
        assert_eq!(tree.inclusion(N, N), Err(TreeError::Outside));
        assert_eq!(tree.consistency(1, N + 1), Err(TreeError::Outside));
        assert_eq!(tree.range(0, 1, N + 1), Err(TreeError::Outside));
    }

    #[test]
    fn roots_and_proofs_at_tile_borders_equal_an_independent_implementation() {
        let (mut log, mut oracle) = (Log::default(), Oracle::new());
        for size in 1..=65_600u64 {
            let line = size.to_be_bytes();
            log.push(leaf_hash(&line));
            oracle.push(line);
            if ![1, 2, 3, 7, 255, 256, 257, 511, 512, 513, 1000, 65_279, 65_535, 65_536, 65_537, 65_600].contains(&size) {
                continue;
            }
            let (tree, root) = (log.tree(), log.appender.root());
            assert_eq!(oracle.root().as_bytes()[..], root, "root of {size}");
            assert_eq!(tree.root(size), Ok(root));
            assert_eq!(oracle.len(), log.appender.size());
            for index in [0, 1, size / 3, size / 2, size.saturating_sub(256), size - 1].into_iter().filter(|index| *index < size) {
                let proof = tree.inclusion(index, size).unwrap();
                assert_eq!(oracle.prove_inclusion(index as usize).as_bytes(), proof.concat(), "{index} of {size}");
                assert!(verify_inclusion(&log.leaves[index as usize], index, size, &proof, &root));
                let old = index + 1;
                let proof = tree.consistency(old, size).unwrap();
                assert!(verify_consistency(old, &tree.root(old).unwrap(), size, &root, &proof));
                if old < size {
                    assert_eq!(oracle.prove_consistency((size - old) as usize).as_bytes(), proof.concat(), "{old} to {size}");
                }
                let mut span = Span::starting(index);
                let end = (index + 300).min(size);
                log.leaves[index as usize..end as usize].iter().for_each(|leaf| span.push(*leaf, |_, _| {}));
                assert_eq!(span.root(size, &tree.range(index, end, size).unwrap()), Some(root), "{index}..{end} of {size}");
            }
            let quick = Tree::at(&log.tiles, &log.appender);
            assert_eq!(quick.inclusion(size / 2, size), tree.inclusion(size / 2, size));
            assert_eq!(quick.consistency(size / 3, size), tree.consistency(size / 3, size));
            let again = Appender::load(&tree).unwrap();
            let levels = |appender: &Appender| {
                let mut levels = appender.unfilled.clone();
                levels.truncate(levels.iter().rposition(|level| !level.is_empty()).map_or(0, |last| last + 1));
                levels
            };
            assert_eq!((again.size(), again.root(), levels(&again)), (size, root, levels(&log.appender)));
        }
        assert_eq!(log.tiles.len(), 256 + 1);
    }

    #[test]
    fn a_reloaded_appender_fills_the_same_tiles() {
        for size in [0, 1, 255, 256, 300, 65_535] {
            let mut log = Log::numbered(size);
            let mut again = Appender::load(&log.tree()).unwrap();
            for leaf in 0..600u32 {
                let leaf = leaf_hash(&leaf.to_be_bytes());
                let mut full = Vec::new();
                assert_eq!(again.append(leaf, &mut full), log.leaves.len() as u64);
                log.push(leaf);
                assert!(full.iter().all(|tile| log.tiles[&(tile.level, tile.index)] == tile.bytes));
                assert_eq!(again.root(), log.appender.root());
            }
        }
    }

    #[test]
    fn an_abandoned_batch_leaves_no_trace() {
        let log = Log::numbered(300);
        let mut staged = log.appender.clone();
        (0..400u32).for_each(|leaf| _ = staged.append(leaf_hash(&leaf.to_be_bytes()), &mut Vec::new()));
        drop(staged);
        assert_eq!((log.appender.size(), log.appender.root()), (300, mth(&log.leaves)));
    }

    #[test]
    fn missing_and_damaged_tiles_are_errors() {
        let mut log = Log::numbered(600);
        log.tiles.get_mut(&(0, 1)).unwrap().pop();
        assert_eq!(log.tree().root(600), Err(TreeError::Damaged { level: 0, index: 1 }));
        log.tiles.remove(&(0, 1));
        assert_eq!(log.tree().root(600), Err(TreeError::Store(())));
        assert!(Tree::new(&log.tiles, 600, Vec::new()).is_none());
    }

    #[test]
    fn hostile_sizes_and_proofs_end_without_panic() {
        let numbers = [0, 1, 2, 255, 1 << 32, (1 << 53) - 1, u64::MAX - 1, u64::MAX];
        for length in [0, 1, 63, 64, 65, 128, 200] {
            let proof = vec![[7; 32]; length];
            for a in numbers {
                for b in numbers {
                    assert!(!verify_inclusion(&[1; 32], a, b, &proof, &[2; 32]));
                    assert!(a == b || !verify_consistency(a, &[1; 32], b, &[2; 32], &proof));
                    assert_ne!(Span::starting(a).root(b, &proof), Some([2; 32]));
                }
            }
        }
    }
}
