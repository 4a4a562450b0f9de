//! Permits of which there are only so many, shared out fairly between tenants: to have an instance, to compile, and
//! to compute for long.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::oneshot;

/// How many permits there are, and how many may wait for one. All are at least 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotLimits {
    /// Permits in all.
    pub(crate) slots: u32,
    /// Permits that one tenant may have at a time.
    pub(crate) per_tenant: u32,
    /// Callers that may wait in all.
    pub(crate) queue: u32,
    /// Callers of one tenant that may wait.
    pub(crate) queue_per_tenant: u32,
}

/// Permits, and the queues in front of them: one for each tenant, first come first served. A slot that becomes free
/// goes to the tenant whose turn it is among those that wait and have not yet as many as they may; whoever was
/// served goes to the end of that line.
///
/// While a slot is free, nobody waits who may have one: each slot that is given back is handed to exactly one caller,
/// and nobody else is woken.
#[derive(Clone)]
pub(crate) struct Slots(Arc<Mutex<Tenants>>);

/// The queue is full.
#[derive(Debug)]
pub(crate) struct Busy;

/// What asking for a slot leads to.
pub(crate) enum Asked {
    /// A slot, at once.
    Have(Slot),
    /// A place in the tenant's queue.
    Wait(Waiting),
}

struct Tenants {
    limits: SlotLimits,
    free: u32,
    waiting: u32,
    /// Those that have a slot or wait for one. Nothing is kept of others.
    tenants: HashMap<Arc<str>, Tenant>,
    /// Those that wait and may have one more, in the order of their turns.
    turns: BTreeMap<u64, Arc<str>>,
    /// The last number that was given to a turn or to a place in a queue.
    last_number: u64,
}

#[derive(Default)]
struct Tenant {
    running: u32,
    waiting: BTreeMap<u64, oneshot::Sender<Slot>>,
    turn: Option<u64>,
}

impl Slots {
    pub(crate) fn new(limits: SlotLimits) -> Self {
        Self(Arc::new(Mutex::new(Tenants {
            limits,
            free: limits.slots,
            waiting: 0,
            tenants: HashMap::new(),
            turns: BTreeMap::new(),
            last_number: 0,
        })))
    }

    /// A slot for `tenant`, or a place in its queue. The slot is free again when it is dropped.
    pub(crate) fn ask(&self, tenant: &Arc<str>) -> Result<Asked, Busy> {
        let mut tenants = self.lock();
        if tenants.take(tenant) {
            return Ok(Asked::Have(Slot { slots: self.clone(), tenant: Arc::clone(tenant) }));
        }
        let (sender, granted) = oneshot::channel();
        let number = tenants.enqueue(tenant, sender)?;
        let place = Place { slots: self.clone(), tenant: Arc::clone(tenant), number };
        Ok(Asked::Wait(Waiting { _place: place, granted }))
    }

    /// A slot for `tenant`, now or after waiting in its queue.
    pub(crate) async fn take(&self, tenant: &Arc<str>) -> Result<Slot, Busy> {
        match self.ask(tenant)? {
            Asked::Have(slot) => Ok(slot),
            Asked::Wait(waiting) => waiting.await,
        }
    }

    pub(crate) fn free(&self) -> u32 {
        self.lock().free
    }

    pub(crate) fn waiting(&self) -> u32 {
        self.lock().waiting
    }

    fn lock(&self) -> MutexGuard<'_, Tenants> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tenants {
    /// Takes a slot if one is free and the tenant may have one more. That overtakes nobody: a tenant that may have
    /// one more does not wait while one is free.
    fn take(&mut self, tenant: &Arc<str>) -> bool {
        if self.free == 0 {
            return false;
        }
        let entry = self.tenants.entry(Arc::clone(tenant)).or_default();
        if entry.running >= self.limits.per_tenant {
            return false;
        }
        entry.running += 1;
        self.free -= 1;
        true
    }

    /// A place at the end of the tenant's queue, by its number.
    fn enqueue(&mut self, tenant: &Arc<str>, sender: oneshot::Sender<Slot>) -> Result<u64, Busy> {
        let queued = self.tenants.get(tenant).map_or(0, |entry| entry.waiting.len());
        if self.waiting >= self.limits.queue || queued >= self.limits.queue_per_tenant as usize {
            return Err(Busy);
        }
        self.last_number += 1;
        let number = self.last_number;
        self.tenants.entry(Arc::clone(tenant)).or_default();
        self.change(tenant, |entry| entry.waiting.insert(number, sender));
        self.waiting += 1;
        Ok(number)
    }

    /// Changes a tenant, gives it a turn or takes it away, and forgets it when it neither runs nor waits.
    fn change<R>(&mut self, tenant: &Arc<str>, change: impl FnOnce(&mut Tenant) -> Option<R>) -> Option<R> {
        let entry = self.tenants.get_mut(tenant)?;
        let changed = change(entry);
        let may_have_one = !entry.waiting.is_empty() && entry.running < self.limits.per_tenant;
        match entry.turn {
            None if may_have_one => {
                self.last_number += 1;
                entry.turn = Some(self.last_number);
                self.turns.insert(self.last_number, Arc::clone(tenant));
            }
            Some(turn) if !may_have_one => {
                entry.turn = None;
                self.turns.remove(&turn);
            }
            _ => {}
        }
        if entry.running == 0 && entry.waiting.is_empty() {
            self.tenants.remove(tenant);
        }
        changed
    }

    /// Gives a free slot to the first caller of the tenant whose turn it is.
    fn grant(&mut self) -> Option<(Arc<str>, oneshot::Sender<Slot>)> {
        if self.free == 0 {
            return None;
        }
        let (_, tenant) = self.turns.pop_first()?;
        let first = self.change(&tenant, |entry| {
            entry.turn = None;
            let (_, sender) = entry.waiting.pop_first()?;
            entry.running += 1;
            Some(sender)
        })?;
        self.free -= 1;
        self.waiting -= 1;
        Some((tenant, first))
    }
}

/// The right to one of what there is only so much of.
pub(crate) struct Slot {
    slots: Slots,
    tenant: Arc<str>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut tenants = self.slots.lock();
        tenants.change(&self.tenant, |entry| {
            entry.running -= 1;
            Some(())
        });
        tenants.free += 1;
        let granted = tenants.grant();
        drop(tenants);
        if let Some((tenant, sender)) = granted {
            // If its caller has just left, the slot comes back as an error, is dropped, and goes to the next.
            drop(sender.send(Self { slots: self.slots.clone(), tenant }));
        }
    }
}

/// A caller that waits for its slot. Dropping it leaves the queue, and gives back a slot that was granted meanwhile.
pub(crate) struct Waiting {
    // Dropped first: who has left the queue is granted nothing.
    _place: Place,
    granted: oneshot::Receiver<Slot>,
}

impl Future for Waiting {
    type Output = Result<Slot, Busy>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.granted).poll(cx).map_err(|_| Busy)
    }
}

/// A place in a queue, given up when the caller leaves; long gone if it had its slot.
struct Place {
    slots: Slots,
    tenant: Arc<str>,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut tenants = self.slots.lock();
        if tenants.change(&self.tenant, |entry| entry.waiting.remove(&self.number)).is_some() {
            tenants.waiting -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Waker;

    use super::*;

    fn slots(slots: u32, per_tenant: u32) -> Slots {
        Slots::new(SlotLimits { slots, per_tenant, queue: 100, queue_per_tenant: 10 })
    }

    fn tenants<const N: usize>() -> [Arc<str>; N] {
        std::array::from_fn(|number| format!("org_{number}").into())
    }

    fn have(slots: &Slots, tenant: &Arc<str>) -> Slot {
        match slots.ask(tenant) {
            Ok(Asked::Have(slot)) => slot,
            _ => panic!("no slot for {tenant}"),
        }
    }

    fn wait(slots: &Slots, tenant: &Arc<str>) -> Waiting {
        match slots.ask(tenant) {
            Ok(Asked::Wait(waiting)) => waiting,
            _ => panic!("no place for {tenant}"),
        }
    }

    /// The slot, if it has been granted.
    fn granted(waiting: &mut Waiting) -> Option<Slot> {
        match Pin::new(waiting).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(slot) => Some(slot.unwrap()),
            Poll::Pending => None,
        }
    }

    #[track_caller]
    fn assert_idle(slots: &Slots) {
        let tenants = slots.lock();
        assert_eq!((tenants.free, tenants.waiting), (tenants.limits.slots, 0));
        assert!(tenants.tenants.is_empty() && tenants.turns.is_empty(), "nothing is kept of the idle");
    }

    #[test]
    fn a_tenant_has_no_more_than_its_share() {
        let slots = slots(4, 2);
        let [greedy, other] = tenants();
        let held = [have(&slots, &greedy), have(&slots, &greedy)];
        let mut third = wait(&slots, &greedy);
        assert!(granted(&mut third).is_none());
        let others = [have(&slots, &other), have(&slots, &other)];
        assert_eq!(slots.free(), 0);
        drop(others);
        assert!(granted(&mut third).is_none(), "what others give back is not for it");
        assert_eq!((slots.free(), slots.waiting()), (2, 1));
        drop(held);
        assert!(granted(&mut third).is_some());
        drop(third);
        assert_idle(&slots);
    }

    #[test]
    fn tenants_take_turns_and_are_served_in_order() {
        let slots = slots(1, 1);
        let [one, two, three] = tenants();
        let mut held = Some(have(&slots, &one));
        // One was first, and has more callers than all others together.
        let mut queue: Vec<_> = [&one, &one, &one, &two, &two, &three]
            .into_iter()
            .enumerate()
            .map(|(number, tenant)| (number, wait(&slots, tenant)))
            .collect();
        let mut order = Vec::new();
        while !queue.is_empty() {
            held = None;
            let at = queue.iter_mut().position(|(_, waiting)| {
                held = granted(waiting);
                held.is_some()
            });
            order.push(queue.remove(at.expect("a free slot goes to who waits")).0);
        }
        // One gives the slot back, and has its next turn behind those that waited while it had it.
        assert_eq!(order, [3, 5, 0, 4, 1, 2]);
        drop(held);
        assert_idle(&slots);
    }

    #[test]
    fn queues_are_bounded_for_each_and_for_all() {
        let slots = Slots::new(SlotLimits { slots: 1, per_tenant: 1, queue: 5, queue_per_tenant: 3 });
        let [one, two, three] = tenants();
        let held = have(&slots, &one);
        let ones: Vec<_> = (0..3).map(|_| wait(&slots, &one)).collect();
        assert!(slots.ask(&one).is_err(), "its own queue is full");
        let twos: Vec<_> = (0..2).map(|_| wait(&slots, &two)).collect();
        assert!(slots.ask(&two).is_err() && slots.ask(&three).is_err(), "all are full");
        assert_eq!(slots.lock().tenants.len(), 2, "who was sent away is not remembered");
        drop(ones);
        assert_eq!(slots.waiting(), 2);
        drop((twos, held));
        assert_idle(&slots);
    }

    #[test]
    fn who_leaves_makes_room() {
        let slots = slots(1, 1);
        let [one, two] = tenants();
        let held = have(&slots, &one);
        let leaves = wait(&slots, &two);
        let mut stays = wait(&slots, &two);
        drop(leaves);
        drop(held);
        let slot = granted(&mut stays).unwrap();
        // Granted and never asked for.
        let leaves = wait(&slots, &one);
        let mut stays = wait(&slots, &one);
        drop(slot);
        drop(leaves);
        assert!(granted(&mut stays).is_some());
        drop(stays);
        assert_idle(&slots);
    }

    /// Callers of a few tenants on four threads, of whom many leave: at once, while they wait, or as they are
    /// granted. No tenant ever has more than its share, all who stay are served, and nothing is left over.
    #[test]
    fn nothing_is_lost_in_a_crowd() {
        const SLOTS: u32 = 5;
        const SHARE: u32 = 2;
        let slots =
            Slots::new(SlotLimits { slots: SLOTS, per_tenant: SHARE, queue: 60, queue_per_tenant: 25 });
        let names: [Arc<str>; 6] = tenants();
        let running: Arc<[AtomicU32; 6]> = Arc::default();
        let (all, served) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build();
        let runtime = runtime.unwrap();
        runtime.block_on(async {
            let callers: Vec<_> = (0..64_u64)
                .map(|caller| {
                    let (slots, names) = (slots.clone(), names.clone());
                    let (running, all) = (Arc::clone(&running), Arc::clone(&all));
                    let served = Arc::clone(&served);
                    tokio::spawn(async move {
                        let mut random = caller.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
                        for _ in 0..2000 {
                            random ^= random << 13;
                            random ^= random >> 7;
                            random ^= random << 17;
                            let which = (random % 6) as usize;
                            let slot = match slots.ask(&names[which]) {
                                Err(Busy) => {
                                    tokio::task::yield_now().await;
                                    continue;
                                }
                                Ok(Asked::Have(slot)) => slot,
                                Ok(Asked::Wait(mut waiting)) if random & 0x300 == 0 => {
                                    // Leaves after a look or two, granted or not.
                                    for _ in 0..(random >> 20) % 3 {
                                        drop(granted(&mut waiting));
                                        tokio::task::yield_now().await;
                                        if waiting.granted.is_terminated() {
                                            break;
                                        }
                                    }
                                    continue;
                                }
                                Ok(Asked::Wait(waiting)) => waiting.await.unwrap(),
                            };
                            let now = running[which].fetch_add(1, Ordering::SeqCst) + 1;
                            assert!(now <= SHARE, "{which} has {now}");
                            let now = all.fetch_add(1, Ordering::SeqCst) + 1;
                            assert!(now <= SLOTS, "{now} at once");
                            if random & 0x400 == 0 {
                                tokio::task::yield_now().await;
                            }
                            running[which].fetch_sub(1, Ordering::SeqCst);
                            all.fetch_sub(1, Ordering::SeqCst);
                            served.fetch_add(1, Ordering::Relaxed);
                            drop(slot);
                        }
                    })
                })
                .collect();
            for caller in callers {
                caller.await.unwrap();
            }
        });
        assert!(served.load(Ordering::Relaxed) > 10_000, "{served:?}");
        assert_idle(&slots);
    }
}
