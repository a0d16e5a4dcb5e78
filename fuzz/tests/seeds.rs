//! The seeds without a fuzzer.

use std::{collections::BTreeSet, fs};

use fuzz::{TARGETS, seeds};

#[test]
fn the_committed_seeds_match_what_the_example_writes() {
    for seed in seeds::all() {
        let path = seed.path();
        let committed = fs::read(&path).unwrap_or_default();
        assert!(
            committed == seed.bytes,
            "{} is not up to date: cargo run --package fuzz --example seeds",
            path.display()
        );
    }
}

#[test]
fn every_target_has_seeds_and_passes_them() {
    let folders: BTreeSet<_> = fs::read_dir(seeds::folder())
        .expect("the folder of seeds")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .collect();
    assert_eq!(folders, TARGETS.map(|(name, _)| name.to_owned()).into());
    for (name, check) in TARGETS {
        let files = fs::read_dir(seeds::folder().join(name)).expect("a folder of seeds");
        for file in files {
            let path = file.expect("an entry").path();
            println!("{}", path.display());
            check(&fs::read(&path).expect("a seed"));
        }
    }
}
