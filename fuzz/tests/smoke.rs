//! Every target on its seeds and on random mutations of them.

#![allow(
    clippy::unwrap_used,
    reason = "all of this is a test, also the functions that are not marked as one"
)]

use std::{
    env, fs,
    path::Path,
    time::{Duration, Instant},
};

use countem_fuzz::{TARGETS, Target};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom as _};

/// Maximum number of changes of a seed.
const MAX_CHANGES: usize = 8;

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let seeds: Vec<_> = files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
    assert!(!seeds.is_empty(), "`{name}` has no seeds");
    seeds
}

fn target(name: &str) -> Target {
    TARGETS.iter().find(|(other, _)| *other == name).unwrap().1
}

/// Flips, inserts, removes and copies bytes.
fn mutate(data: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut StdRng) {
    for _ in 0..random.random_range(1..=MAX_CHANGES) {
        let at = random.random_range(0..=data.len());
        match random.random_range(0..5) {
            0 if at < data.len() => data[at] ^= 1 << random.random_range(0..8),
            1 if at < data.len() => data[at] = *b"0129-.:TW\"[]=\0\xff".choose(random).unwrap(),
            2 if at < data.len() => drop(data.remove(at)),
            3 => {
                let other = seeds.choose(random).unwrap();
                let from = random.random_range(0..=other.len());
                let part = &other[from..random.random_range(from..=other.len())];
                data.splice(at..at, part.iter().copied());
            }
            _ => data.insert(at, random.random()),
        }
    }
}

fn run(name: &str) {
    let (target, seeds) = (target(name), seeds(name));
    seeds.iter().for_each(|seed| target(seed));
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("COUNTEM_SEED").unwrap_or_else(rand::random);
    println!("COUNTEM_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let length = Duration::from_secs(number("COUNTEM_FUZZ_SECONDS").unwrap_or(2));
    let begun = Instant::now();
    while begun.elapsed() < length {
        let mut data = seeds.choose(&mut random).unwrap().clone();
        mutate(&mut data, &seeds, &mut random);
        target(&data);
    }
}

#[test]
fn batches_survive_a_round_trip() {
    run("batch");
}

#[test]
fn buckets_have_one_id() {
    run("bucket_id");
}

#[test]
fn accepted_names_are_kept() {
    run("name");
}

#[test]
fn accepted_configuration_loads_from_its_rendering() {
    run("config");
}

#[test]
fn lines_give_valid_names() {
    run("line");
}

#[test]
fn times_are_read_alike_every_time() {
    run("time");
}

#[test]
fn labels_that_are_found_read_back() {
    run("labels");
}

#[test]
fn ranges_read_back_and_hold_their_buckets() {
    run("range");
}

#[test]
fn rows_survive_an_export() {
    run("row");
}

#[test]
fn documents_are_read_alike_in_all_blocks() {
    run("document");
}
