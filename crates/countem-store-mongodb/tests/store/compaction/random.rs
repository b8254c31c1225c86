//! Random lives of writers, with compactions in between and beside them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
    time::Instant,
};

use countem_store::Rows;
use countem_testkit::Message;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::*;

type Days = BTreeMap<Bucket, Counters>;

/// A writer, all its batches, and those that may not be stored yet.
struct Life {
    lane: Lane,
    batches: Vec<Arc<Batch>>,
    is_in_doubt: bool,
}

impl Life {
    fn new(node: u64) -> Self {
        Self { lane: Lane::new(node), batches: Vec::new(), is_in_doubt: false }
    }

    fn unresolved(&self) -> Option<&Arc<Batch>> {
        self.batches.last().filter(|_| self.is_in_doubt)
    }
}

/// Returns the batch as a process that knows nothing of it has it.
fn copy(batch: &Batch) -> Result<Arc<Batch>> {
    Ok(Arc::new(Batch::decode(&batch.encode())?))
}

fn add(days: &mut Days, batch: &Batch) {
    for delta in batch.deltas() {
        days.entry(delta.bucket).or_default().add(delta.metric, delta.n);
    }
}

/// Checks that all values lie between `least` and `most`.
fn check(read: &Rows, least: &Days, most: &Days, when: &str) {
    for (bucket, counters) in most {
        for metric in counters.metrics() {
            let of = |days: &Rows| {
                let counters = days.get(bucket);
                counters
                    .and_then(|counters| counters.get(metric).expect("it is readable"))
                    .unwrap_or_default()
            };
            let (low, value, high) = (of(least), of(read), of(most));
            assert!(low <= value && value <= high, "{when}: {bucket} {metric}: {low} {value} {high}");
        }
    }
    let known =
        |bucket, metric| most.get(bucket).is_some_and(|known: &Counters| known.get(metric) != Ok(None));
    for (bucket, counters) in read {
        assert!(
            counters.metrics().all(|metric| known(bucket, metric)),
            "{when}: there is more than was counted"
        );
    }
}

async fn lives(scene: &Scene, seed: u64) -> Result<()> {
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let uri = in_own_database(&scene.proxy.uri());
    let direct = without_proxy(&uri, &scene.proxy, &scene.set);
    let own = database(&direct).await?;
    let all = metrics(150);
    let start = |random: &mut StdRng| {
        let metrics = *[1, 3, 16, 256].choose(random).expect("there are choices");
        with(&uri, metrics, *[1, 1, 2, 4].choose(random).expect("there are choices"))
    };
    let range = BucketRange::new(bucket(DAY), bucket(NEXT_DAY)).context("in order")?;
    let query = RowQuery { collection: collection("web"), range, select: Select::All };
    let (mut store, mut resolved) = (start(&mut random), Days::new());
    let (mut node, mut passes, mut compacted) = (3, 0, 0);
    let mut lives: Vec<_> = (0..3).map(Life::new).collect();
    for step in 0..100 {
        let skip = AtomicI32::new(random.random_range(0..4));
        let is_chosen = move |request: &Message| {
            let is_known =
                ["update", "find", "commitTransaction", "delete"].iter().any(|name| request.is(name));
            is_known && skip.fetch_sub(1, Ordering::Relaxed) == 0
        };
        let fault = match random.random_range(0..6) {
            0 => Some(scene.proxy.drop_request(1, is_chosen)),
            1 => Some(scene.proxy.drop_reply(1, is_chosen)),
            _ => None,
        };
        let at = random.random_range(0..lives.len());
        let life = &mut lives[at];
        match random.random_range(0..10) {
            // A batch, new or in doubt.
            0..5 => {
                if !life.is_in_doubt {
                    let size = *[1, 5, 40, 150].choose(&mut random).expect("there are choices");
                    let chosen: Vec<_> = all.choose_multiple(&mut random, size).collect();
                    let day = [DAY, NEXT_DAY][random.random_range(0..2)];
                    let n = random.random_range(1..9);
                    let batch = life.lane.batch(chosen.iter().map(|metric| ("web", day, metric.as_str(), n)));
                    life.batches.push(batch);
                }
                let batch = life.batches.last().expect("it has one");
                life.is_in_doubt = store.apply(batch).await.is_err();
                if !life.is_in_doubt {
                    add(&mut resolved, batch);
                }
            }
            // A late copy by a process that knows nothing.
            5 => {
                let known = life.batches.len() - usize::from(life.is_in_doubt);
                if let Some(batch) = life.batches[..known].choose(&mut random) {
                    start(&mut random).apply(&copy(batch)?).await.ok();
                }
            }
            // A writer ends, and is forgotten by everyone.
            6 if !life.is_in_doubt && !life.batches.is_empty() => {
                // Whether or not that is known to be stored, it sends nothing any more.
                store.retire(&life.lane.writer).await.ok();
                store.prune(Duration::ZERO).await.ok();
                node += 1;
                *life = Life::new(node);
            }
            _ => {
                passes += 1;
                let mut compacting = compact(&store, passes).await;
                if compacting.is_err() {
                    compacting = compact(&store, passes).await;
                }
                compacted += compacting.unwrap_or_default();
                if random.random_bool(0.3) {
                    let ages = doc! { "$inc": { "compacted": -7_200_000_i64 } };
                    let is_compacted = doc! { "compacted": { "$exists": true } };
                    own.collection::<Document>("web").update_many(is_compacted, ages).await?;
                }
            }
        }
        let harmless = database(&uri).await?;
        while fault.as_ref().is_some_and(|fault| fault.count() == 0) {
            // A fault that found no request must not hit what comes next.
            harmless.run_command(doc! { "find": "nothing" }).await.ok();
        }
        if random.random_bool(0.2) {
            store = start(&mut random);
        }
        let asking = lives.choose(&mut random).and_then(Life::unresolved);
        let mut least = resolved.clone();
        asking.iter().for_each(|batch| add(&mut least, batch));
        let mut most = resolved.clone();
        lives.iter().filter_map(Life::unresolved).for_each(|batch| add(&mut most, batch));
        let read = store.read(&query, asking.map(|batch| &**batch)).await?;
        check(&read, &least, &most, &format!("seed {seed} step {step}"));
    }
    let store = start(&mut random);
    for life in &lives {
        if let Some(batch) = life.unresolved() {
            deliver(&store, batch).await;
            add(&mut resolved, batch);
        }
    }
    compacted += compact(&store, passes + 1).await?;
    for batch in lives.iter().flat_map(|life| &life.batches) {
        store.apply(&copy(batch)?).await?;
    }
    assert_eq!(store.read(&query, None).await?, resolved, "seed {seed}");
    assert!(compacted > 5, "seed {seed}: {compacted} buckets");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_batches_keep_their_sums() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let scene = Scene::start().await?;
    end_transactions_soon(&scene.set).await?;
    // The second one counted batches twice that were sent again in a row.
    for seed in [1, 13_935_831_381_137_880_761, rand::random()] {
        lives(&scene, seed).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_beside_compactions_and_late_writers() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let scene = Arc::new(Scene::start().await?);
    let stop = Arc::new(AtomicBool::new(false));
    let all = Arc::new(metrics(60));
    // Every metric of a day is counted as often as batches were resolved, and once more at most for each that is on its way.
    let counted: Arc<[AtomicI32; 2]> = Arc::default();
    let writers: Vec<_> = (0..3_u64)
        .map(|node| {
            let (scene, stop, all, counted) =
                (Arc::clone(&scene), Arc::clone(&stop), Arc::clone(&all), Arc::clone(&counted));
            tokio::spawn(async move {
                let mut lane = Lane::new(node);
                let settings = [(1, 1, 0), (8, 2, 1), (256, 3, 0), (1, 4, 1), (8, 1, 0), (256, 2, 1)];
                for (metrics, shards, at) in settings.into_iter().cycle() {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let store = scene.store(metrics, shards);
                    let day = [DAY, NEXT_DAY][at];
                    let batch = lane.batch(all.iter().map(|metric| ("web", day, metric.as_str(), 1)));
                    deliver(&store, &batch).await;
                    counted[at].fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let compacting = tokio::spawn({
        let (scene, stop) = (Arc::clone(&scene), Arc::clone(&stop));
        async move {
            let (store, mut passes) = (scene.store(256, 1), 0);
            while !stop.load(Ordering::Relaxed) {
                passes += 1;
                compact(&store, passes).await.expect("no server fails");
            }
            passes
        }
    });
    // The server lets others in between any two documents of a read.
    let often = doc! { "setParameter": 1, "internalQueryExecYieldIterations": 1 };
    scene.set.member(0).admin_command(often).await?;
    let (store, mut reads) = (scene.store(256, 1), 0);
    let range = BucketRange::new(bucket(DAY), bucket(NEXT_DAY)).context("in order")?;
    let page = NonZeroUsize::new(7).context("not zero")?;
    let until = Instant::now() + Duration::from_secs(12);
    while Instant::now() < until {
        let select = match reads % 3 {
            0 => Select::All,
            1 => Select::One(MetricName::new(&all[reads % all.len()])?),
            _ => Select::first(page),
        };
        let query = RowQuery { collection: collection("web"), range, select };
        let least: Vec<_> = counted.iter().map(|count| count.load(Ordering::SeqCst)).collect();
        let rows = store.read(&query, None).await?;
        for (at, bucket) in range.iter().enumerate() {
            let most = i64::from(counted[at].load(Ordering::SeqCst)) + 3;
            let counters = rows.get(&bucket).cloned().unwrap_or_default();
            let values: Vec<_> = counters.readable().map(|(_, value)| value).collect();
            let is_right = |value: &i64| (i64::from(least[at])..=most).contains(value);
            assert!(values.iter().all(is_right), "{bucket}: {} {most} {counters:?}", least[at]);
            assert!(least[at] == 0 || !values.is_empty(), "{bucket} is missing: {query:?}");
        }
        reads += 1;
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await?;
    }
    let passes = compacting.await?;
    println!("{reads} reads, {passes} passes, {counted:?} batches");
    assert!(reads > 50 && passes > 10, "{reads} reads, {passes} passes");
    let rows =
        store.read(&RowQuery { collection: collection("web"), range, select: Select::All }, None).await?;
    for (at, bucket) in range.iter().enumerate() {
        let count = i64::from(counted[at].load(Ordering::SeqCst));
        assert!(rows[&bucket].values().all(|value| value == Ok(count)), "{bucket}");
    }
    Ok(())
}
