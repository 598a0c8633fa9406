//! What of the state root goes: items, filters, and the order in which they are removed.
//!
//! In: what there is, how it was used, and a [`Policy`]. Out: which items go. Pure: nothing is read or removed here. Invariant: an
//! item goes only with everything that stands on it, so that what is left is whole. The rules and their order are BuildKit's.

mod filter;
mod policy;

pub use filter::{Filter, FilterError};
pub use policy::{Disk, Policy, Space, due};

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// What an item is, by BuildKit's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum ItemKind {
    /// A layer, or a blob that no layer is known by.
    #[default]
    Regular,
    /// A build context that was copied.
    LocalSource,
    /// A repository.
    GitCheckout,
    /// The directory of `RUN --mount=type=cache`.
    CacheMount,
    /// Notes of this program.
    Internal,
}

impl ItemKind {
    /// Returns BuildKit's name of it.
    pub fn name(self) -> &'static str {
        match self {
            ItemKind::Regular => "regular",
            ItemKind::LocalSource => "source.local",
            ItemKind::GitCheckout => "source.git.checkout",
            ItemKind::CacheMount => "exec.cachemount",
            ItemKind::Internal => "internal",
        }
    }
}

/// One thing that is stored. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Item {
    /// Its name: the number of a layer, the digest of a blob, the folder of a cache.
    pub id: String,
    /// What it is.
    pub kind: ItemKind,
    /// What it stands on, as it is shown.
    pub parents: Vec<String>,
    /// All that it stands on.
    pub below: Vec<String>,
    /// Bytes it takes.
    pub size: u64,
    /// When it was stored.
    pub created: u64,
    /// When a build last used it, at the earliest when it was stored.
    pub last_used: u64,
    /// How many builds used it.
    pub usage_count: u64,
    /// What made it.
    pub description: String,
    /// Whether a running build may be using it.
    pub in_use: bool,
    /// Whether it may still change.
    pub mutable: bool,
}

/// Returns the places in `items` of those that go, in the order in which they can be removed.
pub fn choose(items: &[Item], policy: &Policy, disk: Disk, now: u64) -> Vec<usize> {
    let mut total: u64 = items.iter().map(|item| item.size).sum();
    let keep = policy.keep_bytes(total, disk);
    let eligible: Vec<usize> = (0..items.len()).filter(|at| policy.wants(&items[*at], now)).collect();
    let ranks = ranks(items, &eligible);
    let places: BTreeMap<&str, usize> = items.iter().enumerate().map(|(at, item)| (item.id.as_str(), at)).collect();
    let below = |at: usize| items[at].below.iter().filter_map(|id| places.get(id.as_str()).copied());
    let mut carries = vec![0usize; items.len()];
    (0..items.len()).flat_map(below).for_each(|at| carries[at] += 1);
    let mut free: BinaryHeap<Reverse<(usize, usize)>> = BinaryHeap::new();
    free.extend(eligible.iter().filter(|at| carries[**at] == 0).map(|at| Reverse((ranks[at], *at))));
    let mut chosen = Vec::new();
    while let Some(Reverse((_, at))) = free.pop() {
        if keep.is_some_and(|keep| total < keep) {
            break;
        }
        total -= items[at].size;
        chosen.push(at);
        for lower in below(at) {
            carries[lower] -= 1;
            if let (0, Some(rank)) = (carries[lower], ranks.get(&lower)) {
                free.push(Reverse((*rank, lower)));
            }
        }
    }
    chosen
}

/// Orders items by how long ago and how often they were used, both counting the same.
fn ranks(items: &[Item], eligible: &[usize]) -> BTreeMap<usize, usize> {
    let share = |value: &dyn Fn(usize) -> u64| -> BTreeMap<u64, f64> {
        let values: std::collections::BTreeSet<u64> = eligible.iter().map(|at| value(*at)).collect();
        let count = values.len().max(1) as f64;
        values.into_iter().enumerate().map(|(index, value)| (value, (index + 1) as f64 / count)).collect()
    };
    let (ages, counts) = (share(&|at| items[at].last_used), share(&|at| items[at].usage_count));
    let weight = |at: usize| ages[&items[at].last_used] + counts[&items[at].usage_count];
    let mut sorted = eligible.to_vec();
    sorted.sort_by(|a, b| weight(*a).total_cmp(&weight(*b)).then(a.cmp(b)));
    sorted.into_iter().enumerate().map(|(rank, at)| (at, rank)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn item(id: u64, size: u64, last_used: u64, below: &[u64]) -> Item {
        let below = below.iter().map(u64::to_string).collect();
        Item { id: id.to_string(), size, last_used, below, ..Item::default() }
    }

    fn ids(items: &[Item], policy: &Policy) -> Vec<String> {
        choose(items, policy, Disk::default(), 1000).into_iter().map(|at| items[at].id.clone()).collect()
    }

    #[test]
    fn what_others_stand_on_goes_after_them_or_stays() {
        let items = [item(1, 5, 10, &[]), item(2, 5, 20, &[1]), item(3, 5, 990, &[1, 2]), item(4, 5, 5, &[1])];
        assert_eq!(ids(&items, &Policy::default()), ["4", "3", "2", "1"]);
        let old = Policy { keep_duration: 100, ..Policy::default() };
        assert_eq!(ids(&items, &old), ["4"]);
        let one = Policy { filter: Filter::parse(&["id=2"]).expect("valid"), ..Policy::default() };
        assert!(ids(&items, &one).is_empty());
    }

    #[test]
    fn the_least_used_goes_until_the_rest_is_small_enough() {
        let mut items = [item(1, 10, 10, &[]), item(2, 10, 20, &[]), item(3, 10, 30, &[]), item(4, 10, 40, &[])];
        let policy = |bytes| Policy { max_used: Space::Bytes(bytes), ..Policy::default() };
        assert_eq!(ids(&items, &policy(25)), ["1", "2"]);
        assert!(ids(&items, &policy(41)).is_empty());
        items[0].usage_count = 9;
        assert_eq!(ids(&items, &policy(31)), ["2"]);
    }

    #[test]
    fn notes_go_only_with_all_and_what_is_used_never() {
        let mut items = [item(1, 1, 1, &[]), item(2, 1, 1, &[])];
        items[0].kind = ItemKind::Internal;
        items[1].in_use = true;
        assert!(ids(&items, &Policy::default()).is_empty());
        assert_eq!(ids(&items, &Policy { all: true, ..Policy::default() }), ["1"]);
    }

    proptest! {
        #[test]
        fn what_is_left_is_whole(
            shape in prop::collection::vec((0u64..50, 0u64..1000, 0usize..4, any::<bool>()), 1..40),
            keep in 0u64..600,
            age in 0u64..1000,
        ) {
            let items: Vec<Item> = shape.iter().enumerate().map(|(at, (size, used, back, in_use))| {
                let below: Vec<u64> = (at.saturating_sub(*back)..at).map(|b| b as u64).collect();
                Item { in_use: *in_use, ..item(at as u64, *size, *used, &below) }
            }).collect();
            let policy = Policy { max_used: Space::Bytes(keep), keep_duration: age, ..Policy::default() };
            let gone = choose(&items, &policy, Disk::default(), 1000);
            for (position, at) in gone.iter().enumerate() {
                prop_assert!(!items[*at].in_use && (age == 0 || items[*at].last_used + age <= 1000));
                for (other, item) in items.iter().enumerate() {
                    if item.below.contains(&items[*at].id) {
                        prop_assert!(gone[..position].contains(&other), "{other} stands on {at}");
                    }
                }
            }
            if keep > 0 && age == 0 && items.iter().all(|item| !item.in_use) {
                let left: u64 = items.iter().map(|i| i.size).sum::<u64>() - gone.iter().map(|at| items[*at].size).sum::<u64>();
                prop_assert!(left < keep);
            }
        }
    }
}
