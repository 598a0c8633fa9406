//! The one task that owns all state of a solve: takes answers, moves vertices from step to step, starts what they need.
//!
//! In: answers of tasks (cache maps, content keys, loads, runs). Out: new tasks, news to the observer. Every vertex that may
//! be able to move stands in the work list once; moving one never calls into another, so depth costs no stack.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use tokio_util::sync::CancellationToken;

use super::cache::{CacheError, ItemId};
use super::lookup::Table;
use super::node::{Content, Hit, Level, Reason, Step, Waiter};
use super::op::{CacheDigest, CacheMap, OpError};
use super::report::{Completion, Observer, Outcome, SolveError};
use super::tasks::{Answer, Loaded, Tasks};

/// A solve under way.
pub(super) struct Scheduler<R> {
    pub(super) table: Table<R>,
    pub(super) tasks: Tasks<R>,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) parallelism: usize,
    /// Why there will be no results.
    pub(super) failure: Option<SolveError>,
    /// Set at the first failure and when the targets are done: from then on nothing new starts.
    closing: bool,
    /// Vertices that may be able to move.
    work: VecDeque<usize>,
    /// Bounded vertices ready to run, lowest index first.
    ready: BTreeSet<usize>,
    /// Bounded runs under way.
    running: usize,
    /// What runs or waits to, by the item it will be saved as.
    twins: BTreeMap<ItemId, usize>,
    /// How often a vertex was looked at to be moved.
    pub(super) moves: usize,
}

impl<R: Clone + Send + Sync + 'static> Scheduler<R> {
    /// Starts with nothing asked of any vertex.
    pub(super) fn new(table: Table<R>, tasks: Tasks<R>, observer: Arc<dyn Observer>, parallelism: usize) -> Self {
        Self {
            table,
            tasks,
            observer,
            parallelism: parallelism.max(1),
            failure: None,
            closing: false,
            work: VecDeque::new(),
            ready: BTreeSet::new(),
            running: 0,
            twins: BTreeMap::new(),
            moves: 0,
        }
    }

    /// Runs until the targets have their results, or nothing is left to wait for after a failure.
    pub(super) async fn run(&mut self, targets: &[usize], cancel: &CancellationToken) {
        for &target in targets {
            self.raise(target, Level::Value);
        }
        loop {
            self.work_off();
            let done = targets.iter().all(|&t| self.table.nodes[t].step == Step::Done);
            if done || self.closing {
                break;
            }
            tokio::select! {
                biased;
                () = cancel.cancelled() => self.fail(SolveError::Canceled),
                answer = self.tasks.next() => match answer {
                    Some(answer) => self.take(answer),
                    None => self.stuck(targets),
                },
            }
        }
        self.closing = true;
        self.tasks.cancel();
        while let Some(answer) = self.tasks.next().await {
            self.take(answer);
        }
    }

    fn work_off(&mut self) {
        while let Some(v) = self.work.pop_front() {
            self.table.nodes[v].listed = false;
            self.moves += 1;
            while self.advance(v) {
                self.moves += 1;
            }
        }
        self.start_ready();
    }

    fn list(&mut self, v: usize) {
        if !std::mem::replace(&mut self.table.nodes[v].listed, true) {
            self.work.push_back(v);
        }
    }

    /// Asks a level of a vertex.
    fn raise(&mut self, v: usize, level: Level) {
        if self.table.nodes[v].demand < level {
            self.table.nodes[v].demand = level;
            self.list(v);
        }
    }

    /// Asks a level of input vertex `u` and has `v` wait for it, unless it is there.
    fn wait(&mut self, v: usize, u: usize, reason: Reason) {
        self.raise(u, reason.level());
        let waiter = Waiter { vertex: v, epoch: self.table.nodes[v].epoch, reason };
        self.table.nodes[v].pending += 1;
        if self.table.nodes[u].reached >= reason.level() {
            self.wake(waiter);
        } else {
            self.table.nodes[u].waiters.push(waiter);
        }
    }

    fn wake(&mut self, waiter: Waiter) {
        let v = waiter.vertex;
        if self.table.nodes[v].epoch != waiter.epoch {
            return;
        }
        match waiter.reason {
            Reason::Reach(_) => self.table.nodes[v].pending -= 1,
            Reason::Keys(input) | Reason::AllKeys(input) => {
                self.table.nodes[v].pending -= 1;
                self.table.judge(v, input);
                self.ask_unmatched(v, input);
            }
            Reason::Content(input) => return self.ask_content(v, input),
        }
        if self.table.nodes[v].pending == 0 || self.table.nodes[v].hopeless() {
            self.list(v);
        }
    }

    fn reach(&mut self, v: usize, level: Level) {
        let node = &mut self.table.nodes[v];
        if node.reached >= level {
            return;
        }
        node.reached = level;
        let (woken, waiting) = std::mem::take(&mut node.waiters).into_iter().partition(|w| w.reason.level() <= level);
        node.waiters = waiting;
        let woken: Vec<Waiter> = woken;
        for waiter in woken {
            self.wake(waiter);
        }
    }

    /// Moves a vertex by one step if it can; returns whether it may be able to move again at once.
    fn advance(&mut self, v: usize) -> bool {
        let node = &self.table.nodes[v];
        let early = node.step == Step::Slow && node.hopeless();
        if node.pending > 0 && !early {
            return false;
        }
        match node.step {
            Step::New => self.begin(v),
            Step::Fast => self.after_fast(v),
            Step::FastDone => node.demand >= Level::Near && self.begin_slow(v),
            Step::NearDone => node.demand >= Level::Slow && self.begin_full(v),
            Step::Slow => self.after_slow(v),
            Step::ContentFirst => self.after_content_first(v),
            Step::ContentRest => self.after_content_rest(v),
            Step::KeysDone => node.demand == Level::Value && self.begin_value(v),
            Step::Values => self.ask_contents(v, Step::ContentLast, |_, _| true),
            Step::ContentLast | Step::Twin => self.decide(v),
            Step::Mapping | Step::Queued | Step::Running | Step::Loading | Step::Done => false,
        }
    }

    fn begin(&mut self, v: usize) -> bool {
        let (demand, ignore) = (self.table.nodes[v].demand, self.table.graph.vertex(v).ignore_cache);
        if demand == Level::None {
            return false;
        }
        if ignore && demand < Level::Value {
            // It has no keys to look anything up by, and whoever asks can know that without its cache map.
            self.reach(v, Level::Slow);
            return false;
        }
        self.table.nodes[v].enter(Step::Mapping);
        self.tasks.map(v, &self.table.graph.vertex(v).op);
        let level = if ignore { Level::Value } else { Level::Fast };
        for at in 0..self.table.graph.inputs(v).len() {
            self.raise(self.table.graph.inputs(v)[at].0, level);
        }
        false
    }

    fn mapped(&mut self, v: usize, map: CacheMap) {
        let inputs = self.table.graph.inputs(v).len();
        if map.inputs.len() != inputs {
            let what = format!("describes {} inputs, it has {inputs}", map.inputs.len());
            return self.broke_contract(v, what);
        }
        let node = &mut self.table.nodes[v];
        node.content = map.inputs.iter().map(|i| if i.content { Content::Possible } else { Content::Absent }).collect();
        for (&o, output) in &mut node.outputs {
            let stable = map.digests.iter().filter_map(|digest| match digest {
                CacheDigest::Stable(digest) => Some(super::cache::record_digest(digest, o as i64)),
                CacheDigest::Random(_) => None,
            });
            output.records = stable.collect();
        }
        node.map = Some(map);
        if self.table.graph.vertex(v).ignore_cache {
            self.table.nodes[v].enter(Step::KeysDone);
        } else {
            self.wait_all(v, Step::Fast, |_| Reason::Reach(Level::Fast));
        }
        self.list(v);
    }

    fn wait_all(&mut self, v: usize, step: Step, reason: impl Fn(usize) -> Reason) {
        self.table.nodes[v].enter(step);
        for input in 0..self.table.graph.inputs(v).len() {
            let u = self.table.graph.inputs(v)[input].0;
            self.wait(v, u, reason(input));
        }
    }

    fn after_fast(&mut self, v: usize) -> bool {
        if self.table.search(v) || self.table.graph.inputs(v).is_empty() {
            return self.keys_done(v);
        }
        self.table.nodes[v].enter(Step::FastDone);
        self.reach(v, Level::Fast);
        true
    }

    fn begin_slow(&mut self, v: usize) -> bool {
        self.table.nodes[v].alive = self.table.stores.iter().map(Option::is_some).collect();
        let reason = if self.table.nodes[v].full { Reason::AllKeys } else { Reason::Keys };
        self.wait_all(v, Step::Slow, reason);
        true
    }

    fn begin_full(&mut self, v: usize) -> bool {
        self.table.nodes[v].full = true;
        self.begin_slow(v)
    }

    fn after_slow(&mut self, v: usize) -> bool {
        if self.table.nodes[v].hopeless() || self.table.search(v) {
            return self.keys_done(v);
        }
        self.ask_contents(v, Step::ContentFirst, |table, input| {
            table.has_all_keys(v, input) && table.is_unmatched(v, input)
        })
    }

    fn after_content_first(&mut self, v: usize) -> bool {
        for input in 0..self.table.graph.inputs(v).len() {
            self.table.judge(v, input);
        }
        if self.table.nodes[v].hopeless() || self.table.search(v) {
            return self.keys_done(v);
        }
        if self.table.nodes[v].full {
            return self.ask_contents(v, Step::ContentRest, |_, _| true);
        }
        if !self.table.nodes[v].is_known() {
            return self.begin_full(v);
        }
        self.table.nodes[v].enter(Step::NearDone);
        self.reach(v, Level::Near);
        true
    }

    fn after_content_rest(&mut self, v: usize) -> bool {
        self.table.search(v);
        self.keys_done(v)
    }

    fn keys_done(&mut self, v: usize) -> bool {
        self.table.nodes[v].enter(Step::KeysDone);
        self.reach(v, Level::Slow);
        true
    }

    /// Enters a step that waits for the content keys still to be had of the inputs chosen.
    fn ask_contents(&mut self, v: usize, step: Step, choose: impl Fn(&Table<R>, usize) -> bool) -> bool {
        let possible = |input: &usize| self.table.nodes[v].content[*input] == Content::Possible;
        let inputs = (0..self.table.graph.inputs(v).len()).filter(possible);
        let inputs: Vec<usize> = inputs.filter(|&input| choose(&self.table, input)).collect();
        self.table.nodes[v].enter(step);
        for input in inputs {
            self.table.nodes[v].content[input] = Content::Pending;
            self.wait(v, self.table.graph.inputs(v)[input].0, Reason::Content(input));
        }
        true
    }

    /// Asks for the content of an input whose keys match nothing, while other inputs may still be on their way.
    fn ask_unmatched(&mut self, v: usize, input: usize) {
        let node = &self.table.nodes[v];
        if node.content[input] == Content::Possible
            && !node.hopeless()
            && self.table.has_all_keys(v, input)
            && self.table.is_unmatched(v, input)
        {
            self.table.nodes[v].content[input] = Content::Pending;
            self.wait(v, self.table.graph.inputs(v)[input].0, Reason::Content(input));
        }
    }

    fn ask_content(&mut self, v: usize, input: usize) {
        let (u, o) = self.table.graph.inputs(v)[input];
        let value = self.table.nodes[u].values[&o].clone();
        self.tasks.content(v, input, &self.table.graph.vertex(v).op, value);
    }

    fn begin_value(&mut self, v: usize) -> bool {
        if !self.table.graph.vertex(v).ignore_cache && self.table.nodes[v].is_hit() {
            self.start_load(v);
            return false;
        }
        if let Err(error) = self.table.graph.vertex(v).op.check() {
            self.fail_vertex(v, error);
            return false;
        }
        self.wait_all(v, Step::Values, |_| Reason::Reach(Level::Value));
        true
    }

    /// All inputs are there: loads, waits for a twin, or queues.
    fn decide(&mut self, v: usize) -> bool {
        let ignore = self.table.graph.vertex(v).ignore_cache;
        if !ignore && self.table.search(v) {
            self.start_load(v);
            return false;
        }
        let id = self.twin_id(v).filter(|_| !ignore);
        if let Some(&twin) = id.as_ref().and_then(|id| self.twins.get(id)).filter(|&&twin| twin != v)
            && self.table.nodes[twin].step != Step::Done
        {
            self.table.nodes[v].enter(Step::Twin);
            self.wait(v, twin, Reason::Reach(Level::Value));
            return false;
        }
        if let Some(id) = id {
            self.twins.insert(id, v);
        }
        self.table.nodes[v].enter(Step::Queued);
        if self.table.graph.vertex(v).op.bounded() {
            self.ready.insert(v);
        } else {
            self.start_run(v);
        }
        false
    }

    fn twin_id(&self, v: usize) -> Option<ItemId> {
        let output = *self.table.nodes[v].outputs.keys().next()?;
        self.table.records(v, output).first().map(super::cache::Record::id)
    }

    fn start_ready(&mut self) {
        while self.running < self.parallelism {
            let Some(v) = self.ready.pop_first() else { break };
            self.running += 1;
            self.start_run(v);
        }
    }

    fn start_run(&mut self, v: usize) {
        let inputs = self.table.graph.inputs(v);
        let values = inputs.iter().map(|(u, o)| self.table.nodes[*u].values[o].clone()).collect();
        self.table.nodes[v].enter(Step::Running);
        let vertex = self.table.graph.vertex(v);
        self.observer.started(&vertex.digest);
        self.tasks.run(v, &vertex.op, values);
    }

    fn start_load(&mut self, v: usize) {
        self.table.nodes[v].enter(Step::Loading);
        let hits = self.table.nodes[v].outputs.iter().filter_map(|(&o, output)| Some((o, output.hit.clone()?)));
        let hits: Vec<_> = hits.filter_map(|(o, hit)| Some((o, self.table.stores[hit.store].clone()?, hit))).collect();
        let need = self.table.nodes[v].need;
        self.tasks.load(v, hits, need);
    }
}

/// Answers.
impl<R: Clone + Send + Sync + 'static> Scheduler<R> {
    fn take(&mut self, answer: Answer<R>) {
        match answer {
            Answer::Dropped => {}
            Answer::Mapped(..) | Answer::Content(..) if self.closing => {}
            Answer::Mapped(v, Ok(map)) => self.mapped(v, map),
            Answer::Mapped(v, Err(error)) | Answer::Content(v, _, Err(error)) => self.fail_vertex(v, error),
            Answer::Content(v, input, Ok(key)) => self.content_known(v, input, key.as_ref()),
            Answer::Loaded(v, loaded) => self.loaded(v, loaded),
            Answer::Ran(v, result) => self.ran(v, result),
        }
    }

    fn content_known(&mut self, v: usize, input: usize, key: Option<&crate::digest::Digest>) {
        if self.table.nodes[v].content[input] != Content::Pending {
            // The step that asked was left early; whoever needs it asks again.
            return;
        }
        self.table.nodes[v].set_content(input, key);
        self.table.nodes[v].pending -= 1;
        if self.table.nodes[v].pending == 0 {
            self.list(v);
        }
    }

    fn loaded(&mut self, v: usize, loaded: Loaded<R>) {
        match loaded {
            Loaded::All(values) => {
                for output in self.table.nodes[v].outputs.values_mut() {
                    output.matched = output.hit.clone();
                }
                self.report_covered(v);
                self.finish(v, values, Outcome::Cached);
            }
            Loaded::Failed(..) if self.closing => self.end(v, Outcome::Canceled),
            Loaded::Failed(hit, error) => self.load_failed(v, &hit, &error),
            Loaded::Canceled => self.end(v, Outcome::Canceled),
        }
    }

    /// Forgets the result and looks again, by all keys; what depends on the vertex waits on.
    fn load_failed(&mut self, v: usize, hit: &Hit, error: &CacheError) {
        self.observer.notice(error);
        if let Some(store) = &self.table.stores[hit.store] {
            store.forget(&hit.item, &hit.result);
        }
        for output in self.table.nodes[v].outputs.values_mut() {
            output.hit = None;
        }
        self.table.nodes[v].full = true;
        self.table.nodes[v].enter(Step::FastDone);
        self.list(v);
    }

    fn ran(&mut self, v: usize, result: Result<Vec<R>, OpError>) {
        self.running -= usize::from(self.table.graph.vertex(v).op.bounded());
        match result {
            Ok(values) => {
                let needed = self.table.nodes[v].outputs.keys().next_back().map_or(0, |o| o + 1);
                if values.len() < needed {
                    let what = format!("returned {} results, {needed} are needed", values.len());
                    return self.broke_contract(v, what);
                }
                self.finish(v, values.into_iter().enumerate().collect(), Outcome::Ran);
            }
            Err(_) if self.closing => self.end(v, Outcome::Canceled),
            Err(error) => self.fail_vertex(v, error),
        }
    }

    fn finish(&mut self, v: usize, values: BTreeMap<usize, R>, outcome: Outcome) {
        self.table.nodes[v].values = values;
        self.table.nodes[v].finished = Some(SystemTime::now());
        if let Err(error) = self.table.keep(v) {
            self.observer.notice(&error);
        }
        self.end(v, outcome);
        self.reach(v, Level::Value);
    }

    fn end(&mut self, v: usize, outcome: Outcome) {
        let node = &mut self.table.nodes[v];
        node.enter(Step::Done);
        node.outcome = outcome;
        let digest = &self.table.graph.vertex(v).digest;
        match outcome {
            Outcome::Ran => self.observer.completed(digest, Completion::Ran),
            Outcome::Cached | Outcome::Covered => self.observer.completed(digest, Completion::Cached),
            Outcome::Canceled => self.observer.completed(digest, Completion::Canceled),
            Outcome::Failed | Outcome::NotReached => {}
        }
    }

    /// Tells that what a cached vertex made needless is cached too, in dependency order. Each vertex is told of once.
    fn report_covered(&mut self, v: usize) {
        let mut covered = BTreeSet::new();
        let mut stack = vec![v];
        while let Some(at) = stack.pop() {
            for &(u, _) in self.table.graph.inputs(at) {
                let node = &self.table.nodes[u];
                let open = node.demand < Level::Value && node.outcome == Outcome::NotReached;
                if open && covered.insert(u) {
                    stack.push(u);
                }
            }
        }
        for u in covered {
            self.table.nodes[u].outcome = Outcome::Covered;
            self.observer.completed(&self.table.graph.vertex(u).digest, Completion::Cached);
        }
    }

    /// Nothing is left to wait for: the rules in the module documentation exclude it, but a solve must end.
    fn stuck(&mut self, targets: &[usize]) {
        let open = targets.iter().find(|&&t| self.table.nodes[t].step != Step::Done);
        if let Some(&v) = open {
            self.broke_contract(v, "has no result though nothing is left to wait for".into());
        }
    }

    fn fail_vertex(&mut self, v: usize, error: OpError) {
        let vertex = self.table.graph.vertex(v);
        let (digest, name) = (vertex.digest.clone(), vertex.name.clone());
        self.fail_at(v, SolveError::Vertex { vertex: digest, name, source: Arc::new(error) });
    }

    fn broke_contract(&mut self, v: usize, what: String) {
        let vertex = self.table.graph.vertex(v);
        let (vertex, name) = (vertex.digest.clone(), vertex.name.clone());
        self.fail_at(v, SolveError::Contract { vertex, name, what });
    }

    fn fail_at(&mut self, v: usize, error: SolveError) {
        if self.closing {
            return self.end(v, Outcome::Canceled);
        }
        self.end(v, Outcome::Failed);
        self.observer.completed(&self.table.graph.vertex(v).digest, Completion::Failed(&error));
        self.fail(error);
    }

    fn fail(&mut self, error: SolveError) {
        self.failure.get_or_insert(error);
        self.closing = true;
        self.ready.clear();
        self.work.clear();
        self.tasks.cancel();
    }
}
