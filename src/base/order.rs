//! Sorting of short lists, by code that the program holds once.
//!
//! The library's sort is made anew for every type and every way to compare, five kilobytes each time. Here one copy of it orders places, and the
//! items are moved afterwards. For long lists, as those of a search, the library's own is faster and worth its size.

use std::cmp::Ordering;

/// Sorts `items`; what compares equal stays in the order it was in.
pub fn sort_by<T>(items: &mut Vec<T>, compare: impl Fn(&T, &T) -> Ordering) {
    let mut places: Vec<usize> = (0..items.len()).collect();
    sort_places(&mut places, &|a, b| compare(&items[a], &items[b]));
    let mut old: Vec<Option<T>> = std::mem::take(items).into_iter().map(Some).collect();
    items.extend(places.into_iter().filter_map(|place| old[place].take()));
}

/// As [`sort_by`], ascending by what `key` gives.
pub fn sort_by_key<T, K: Ord>(items: &mut Vec<T>, key: impl Fn(&T) -> K) {
    sort_by(items, |a, b| key(a).cmp(&key(b)));
}

fn sort_places(places: &mut [usize], compare: &dyn Fn(usize, usize) -> Ordering) {
    places.sort_by(|a, b| compare(*a, *b));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_sorted_and_equals_stay_as_they_were() {
        for count in [0, 1, 2, 7, 300] {
            let list: Vec<(usize, usize)> = (0..count).map(|n| (n * 7919 % 13, n)).collect();
            let (mut expected, mut found) = (list.clone(), list);
            expected.sort_by_key(|(key, _)| *key);
            sort_by_key(&mut found, |(key, _)| *key);
            assert_eq!(found, expected);
        }
    }
}
