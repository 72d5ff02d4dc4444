//! `kill -9` of the whole cluster under load, again and again, with a witness that knows what was promised (P1, P2).

use crate::harness::from_env;
use crate::harness::witness::{Scene, scene};
use std::time::Duration;

/// Every acknowledged operation is there; every read, during the load and after each kill, is one whole version that
/// was written; nothing else is listed. `FOLIO_KILL_ROUNDS=60` is the long run.
#[test]
fn no_kill_loses_or_mixes_an_acknowledged_operation() {
    let rounds = from_env("FOLIO_KILL_ROUNDS", 3);
    let Scene { mut cluster, runtime, mut witness, mut dice } = scene(&["a", "b"], 12, 2);
    for round in 0..rounds {
        let client = runtime.block_on(cluster.client(Duration::from_secs(20)));
        let load = witness.start(&runtime, &client);
        let kills = 1 + crate::harness::content::below(&mut dice, 3);
        for _ in 0..kills {
            // The moment is chosen by what was done, not by the clock: after so many acknowledged operations.
            load.wait_operations(20 + crate::harness::content::below(&mut dice, 400));
            cluster.kill_all();
            cluster.start();
        }
        load.wait_operations(50);
        let report = load.stop(&runtime);
        println!("round {round}: {kills} kills, {report}");
        // Once more with nobody at work, then everything is looked at with a client that knows nothing.
        cluster.kill_all();
        cluster.start();
        let fresh = runtime.block_on(cluster.client(Duration::from_secs(20)));
        runtime.block_on(witness.settle(&fresh));
    }
    cluster.stop_all();
}
