//! What is recorded of the global model's quality, against what its trainer says of all examples.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use common::{Tiny, TinyEngine, TinyPopulation, config, play, play_config, population, simulation};
use fl_core::{ClientId, Trainer as _};
use fl_sim::{
    ClientSplit, Engine as _, EvaluationConfig, LocalDisk, PerClient, Population as _,
    SimulationConfig,
};

#[test]
fn every_round_and_evaluation_is_reported_once_and_in_order() {
    let (_, journal) = play_config(config());
    let rounds: Vec<u64> = journal.rounds.iter().map(|r| r.round).collect();
    assert_eq!(rounds, [0, 1, 2, 3, 4, 5]);
    let evaluated: Vec<u64> = journal.evaluations.iter().map(|e| e.round).collect();
    assert_eq!(evaluated, [0, 2, 4, 6]);
    assert!(journal.clients.iter().all(|c| c.round == 6));
    assert!(
        journal
            .clients
            .windows(2)
            .all(|c| c[0].client < c[1].client)
    );
    let odd = SimulationConfig {
        rounds: 5,
        evaluation: EvaluationConfig {
            every: 3,
            initial: false,
            per_client: PerClient::Each,
            ..config().evaluation
        },
        ..config()
    };
    let (_, journal) = play_config(odd);
    let evaluated: Vec<u64> = journal.evaluations.iter().map(|e| e.round).collect();
    assert_eq!(evaluated, [3, 5]);
    assert_eq!(journal.clients.len(), 2 * 60);
}

#[test]
fn an_evaluation_is_what_the_trainer_says_of_all_examples() {
    let mut simulation = simulation(config());
    let journal = play(&mut simulation);
    let population = population();
    let engine = TinyEngine::new();
    let mut trainer = engine.trainer();
    let parameters = simulation.parameters().values();
    let record = journal.evaluations.last().unwrap();

    let test = population.test().unwrap();
    let score = trainer.evaluate(parameters, test, 0..test.len()).unwrap();
    assert_eq!(record.test_accuracy, Some(score.accuracy()));
    assert!((record.test_loss.unwrap() - score.loss()).abs() < 1e-12);

    let (mut loss, mut correct, mut examples) = (0.0, 0, 0);
    let mut scratch = Default::default();
    for client in (0..60).map(ClientId) {
        let data = population.train(client, &mut scratch);
        let rows = 0..fl_core::Examples::len(&data);
        let score = trainer.evaluate(parameters, &data, rows).unwrap();
        loss += score.loss_sum;
        correct += score.correct;
        examples += score.examples;
        let data = population.client_test(client, &mut scratch).unwrap();
        let rows = 0..fl_core::Examples::len(&data);
        let score = trainer.evaluate(parameters, &data, rows).unwrap();
        let single = &journal.clients[client.0 as usize];
        assert_eq!(single.client, client.0);
        assert_eq!(single.split, ClientSplit::Test);
        assert_eq!(single.examples, score.examples);
        assert_eq!(
            (single.loss, single.accuracy),
            (score.loss(), score.accuracy())
        );
    }
    assert_eq!(record.train_loss, Some(loss / examples as f64));
    assert_eq!(
        record.train_accuracy,
        Some(correct as f64 / examples as f64)
    );
    assert_eq!(record.train_clients, 60);
}

/// A sample is judged in place of a larger test set and changes no model; of a limit that the set
/// does not reach, nothing is left out.
#[test]
fn a_sample_stands_for_a_larger_test_set() {
    let whole = population().test().unwrap().len() as u64;
    let run = |max_examples| {
        let config = SimulationConfig {
            evaluation: EvaluationConfig {
                max_examples,
                ..config().evaluation
            },
            ..config()
        };
        let mut simulation = simulation(config);
        let journal = play(&mut simulation);
        (simulation.parameters().values().to_vec(), journal)
    };
    let (parameters, all) = run(None);
    for more in [whole, whole + 1] {
        assert_eq!(run(Some(more)).1.evaluations, all.evaluations);
    }
    let (same, part) = run(Some(30));
    assert_eq!(same, parameters, "what is judged changes no model");
    let accuracy = |journal: &common::Journal| {
        let last = journal.evaluations.last().unwrap();
        last.test_accuracy.unwrap()
    };
    let right = accuracy(&part) * 30.0;
    assert!((right - right.round()).abs() < 1e-9, "{right} of 30");
    assert_ne!(part.evaluations, all.evaluations);
}

#[test]
fn without_a_central_test_set_the_clients_held_out_examples_are_it() {
    let run = |population: TinyPopulation, train| {
        let config = SimulationConfig {
            evaluation: EvaluationConfig {
                train,
                ..config().evaluation
            },
            threads: 2,
            ..config()
        };
        let disk = Arc::new(LocalDisk);
        let mut simulation = Tiny::with_parts(config, population, TinyEngine::new(), disk).unwrap();
        play(&mut simulation)
    };
    for (population, train) in [
        (population().without_test(), true),
        (population().without_test(), false),
        (population().with_empty_test(), false),
    ] {
        let journal = run(population, train);
        let last = journal.evaluations.last().unwrap();
        let (mut loss, mut correct, mut examples) = (0.0, 0.0, 0);
        for client in &journal.clients {
            loss += client.loss * client.examples as f64;
            correct += client.accuracy * client.examples as f64;
            examples += client.examples;
        }
        assert_eq!(examples, (0..60).map(|c| 100 + c % 3).sum::<u64>());
        assert!((last.test_loss.unwrap() - loss / examples as f64).abs() < 1e-9);
        assert!((last.test_accuracy.unwrap() - correct / examples as f64).abs() < 1e-9);
        assert_eq!(last.train_loss.is_some(), train);
    }
    // With neither, single clients are judged on their training examples.
    for train in [true, false] {
        let mut bare = population().without_test();
        bare.with_client_test = false;
        let journal = run(bare, train);
        let last = journal.evaluations.last().unwrap();
        assert_eq!((last.test_loss, last.test_accuracy), (None, None));
        assert_eq!(last.train_loss.is_some(), train);
        let with_examples = (0..60).filter(|c| c * 7 % 41 > 0).count();
        assert_eq!(journal.clients.len(), with_examples);
        assert!(
            journal
                .clients
                .iter()
                .all(|c| c.split == ClientSplit::Train)
        );
    }
}

#[test]
fn a_large_population_is_judged_on_a_sample() {
    let config = SimulationConfig {
        rounds: 2,
        evaluation: EvaluationConfig {
            train: true,
            max_clients: 7,
            ..EvaluationConfig::default()
        },
        ..config()
    };
    let (_, journal) = play_config(config);
    assert_eq!(journal.clients.len(), 7);
    assert!(journal.evaluations.iter().all(|e| e.train_clients == 7));
}

/// The int8 columns are the served model's score on the same examples; asking for them changes
/// nothing else, and threads change nothing.
#[test]
fn the_served_model_is_judged_beside_the_trained_one() {
    let plain = play(&mut simulation(config()));
    let asked = |threads| SimulationConfig {
        evaluation: EvaluationConfig {
            int8: true,
            ..config().evaluation
        },
        threads,
        ..config()
    };
    let mut run = simulation(asked(1));
    let judged = play(&mut run);
    let other = play(&mut simulation(asked(3)));
    assert_eq!(judged.evaluations.len(), plain.evaluations.len());
    for ((with, without), other) in judged
        .evaluations
        .iter()
        .zip(&plain.evaluations)
        .zip(&other.evaluations)
    {
        assert_eq!(with.test_loss, without.test_loss);
        assert_eq!(with.train_loss, without.train_loss);
        assert_eq!(without.test_accuracy_int8, None);
        assert_ne!(with.test_loss_int8, with.test_loss);
        assert!(
            with.test_accuracy_int8
                .is_some_and(|a| (0.0..=1.0).contains(&a))
        );
        assert_eq!(with.test_loss_int8, other.test_loss_int8);
        assert_eq!(with.test_accuracy_int8, other.test_accuracy_int8);
    }
}
