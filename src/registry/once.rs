//! Values that many requests want at once and one of them gets: tokens and accounts.
//!
//! In: a key, and how to get the value. Out: the value, kept until it ends. Invariant: whoever waits for another's answer waits
//! once; where that fails, all go on by themselves and side by side, so that nobody waits for more than two answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A value, and when it is to be had anew.
#[derive(Debug, Clone)]
struct Kept<V> {
    value: V,
    ends: Instant,
}

#[derive(Debug)]
struct Slot<V> {
    kept: Mutex<Option<Kept<V>>>,
    /// Held by whoever gets the value.
    turn: tokio::sync::Mutex<()>,
}

/// Values by key.
#[derive(Debug)]
pub(crate) struct Once<K, V>(Mutex<BTreeMap<K, Arc<Slot<V>>>>);

impl<K, V> Default for Once<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<V: Clone> Slot<V> {
    fn fresh(&self) -> Option<V> {
        locked(&self.kept).as_ref().filter(|kept| kept.ends > Instant::now()).map(|kept| kept.value.clone())
    }
}

impl<K: Ord, V: Clone> Once<K, V> {
    /// Returns the value of a key; `get` makes it and says when it ends.
    pub(crate) async fn get<E>(&self, key: K, get: impl Future<Output = Result<(V, Instant), E>>) -> Result<V, E> {
        let slot = Arc::clone(
            locked(&self.0)
                .entry(key)
                .or_insert_with(|| Arc::new(Slot { kept: Mutex::default(), turn: tokio::sync::Mutex::new(()) })),
        );
        if let Some(value) = slot.fresh() {
            return Ok(value);
        }
        let turn = match slot.turn.try_lock() {
            Ok(turn) => Some(turn),
            Err(_) => {
                drop(slot.turn.lock().await);
                None
            }
        };
        if let Some(value) = slot.fresh() {
            return Ok(value);
        }
        let (value, ends) = get.await?;
        *locked(&slot.kept) = Some(Kept { value: value.clone(), ends });
        drop(turn);
        Ok(value)
    }

    /// Forgets the values that `unwanted` names.
    pub(crate) fn forget(&self, unwanted: impl Fn(&K, &V) -> bool) {
        for (key, slot) in &*locked(&self.0) {
            let mut kept = locked(&slot.kept);
            if kept.as_ref().is_some_and(|kept| unwanted(key, &kept.value)) {
                *kept = None;
            }
        }
    }

    /// Returns a value that is kept, whether it has ended or not.
    pub(crate) fn peek(&self, key: &K) -> Option<V> {
        let slot = Arc::clone(locked(&self.0).get(key)?);
        locked(&slot.kept).as_ref().map(|kept| kept.value.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn one_gets_it_for_all_who_wait() {
        let (once, asked) = (Once::default(), AtomicU32::new(0));
        let get = || async {
            asked.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok::<_, ()>(("value", later()))
        };
        let all = futures_util::future::join_all((0..16).map(|_| once.get("key", get()))).await;
        assert_eq!(all, vec![Ok("value"); 16]);
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        once.forget(|key, value| (*key, *value) == ("key", "value"));
        assert_eq!(once.get("key", get()).await, Ok("value"));
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn what_has_ended_is_had_anew() {
        let once: Once<u8, u8> = Once::default();
        let now = Instant::now();
        assert_eq!(once.get(1, async { Ok::<_, ()>((1, now)) }).await, Ok(1));
        assert_eq!(once.get(1, async { Ok::<_, ()>((2, later())) }).await, Ok(2));
        assert_eq!(once.get(1, async { Err(()) }).await, Ok(2));
        assert_eq!((once.peek(&1), once.peek(&2)), (Some(2), None));
    }

    #[tokio::test]
    async fn a_failure_is_nobody_elses() {
        let once: Once<u8, u8> = Once::default();
        assert_eq!(once.get(1, async { Err("no") }).await, Err("no"));
        assert_eq!(once.get(1, async { Ok::<_, &str>((1, later())) }).await, Ok(1));
    }
}
