//! The complete state of dynamics in npz files, from which they continue bit by bit.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use boltzmap_kernels::random::StreamPosition;
use boltzmap_physics::langevin::Replicas;
use boltzmap_physics::replica_exchange::{ExchangeCount, LastEnd, ReplicaExchangeState};

use crate::npz::{NpzFile, NpzWriter};

// Seeds, domains and counts are stored by their bits.
fn streams_to_words(streams: &[StreamPosition]) -> Vec<i64> {
    streams
        .iter()
        .flat_map(|s| [s.seed, s.domain, s.index, s.word])
        .map(|word| word as i64)
        .collect()
}

fn words_to_streams(words: &[i64]) -> Vec<StreamPosition> {
    words
        .as_chunks::<4>()
        .0
        .iter()
        .map(|four| four.map(|word| word as u64))
        .map(|[seed, domain, index, word]| StreamPosition {
            seed,
            domain,
            index,
            word,
        })
        .collect()
}

/// Adds replicas to a file. `settings` describes the run; another run's state is refused by it.
pub fn put_replicas(writer: NpzWriter, replicas: &Replicas, settings: &str) -> NpzWriter {
    let n = replicas.len();
    let size = replicas.positions.len() / n.max(1);
    writer
        .array("settings", &[settings.len()], settings.as_bytes())
        .array("replica_positions", &[n, size], &replicas.positions)
        .array("replica_velocities", &[n, size], &replicas.velocities)
        .array("replica_temperatures", &[n], &replicas.temperatures)
        .array("replica_energies", &[n], &replicas.potential_energies)
        .array(
            "replica_streams",
            &[n, 4],
            &streams_to_words(&replicas.streams),
        )
        .array("step", &[1], &[replicas.step as i64])
}

/// Opens a state file of a run with the same settings.
pub fn open(path: &Path, settings: &str) -> Result<NpzFile> {
    ensure!(
        path.exists(),
        "{} does not exist; there is nothing to go on from, leave out --resume",
        path.display()
    );
    let file = NpzFile::open(path)?;
    let found = file.array::<u8>("settings", &[None])?.values;
    ensure!(
        found == settings.as_bytes(),
        "{} is of a run with other settings ({}); give the same ones or leave out --resume",
        path.display(),
        String::from_utf8_lossy(&found)
    );
    Ok(file)
}

/// Reads replicas of `size` coordinates each.
pub fn get_replicas(file: &NpzFile, n: usize, size: usize) -> Result<Replicas> {
    let frames = [Some(n), Some(size)];
    Ok(Replicas {
        positions: file.finite("replica_positions", &frames)?.values,
        velocities: file.finite("replica_velocities", &frames)?.values,
        temperatures: file.finite("replica_temperatures", &[Some(n)])?.values,
        potential_energies: file.array("replica_energies", &[Some(n)])?.values,
        streams: words_to_streams(&file.array("replica_streams", &[Some(n), Some(4)])?.values),
        step: file.array::<i64>("step", &[Some(1)])?.values[0] as u64,
    })
}

/// Writes the state of a replica exchange.
pub fn write_exchange(path: &Path, state: &ReplicaExchangeState, settings: &str) -> Result<()> {
    let integers = |values: &[usize]| values.iter().map(|&v| v as i64).collect::<Vec<i64>>();
    let ends: Vec<i64> = state
        .last_end
        .iter()
        .map(|end| match end {
            LastEnd::Neither => 0,
            LastEnd::Lowest => 1,
            LastEnd::HighestFromLowest => 2,
        })
        .collect();
    let exchanges: Vec<i64> = state
        .exchanges
        .iter()
        .flat_map(|count| [count.tried as i64, count.accepted as i64])
        .collect();
    put_replicas(NpzWriter::new(), &state.replicas, settings)
        .array(
            "replica_at",
            &[state.replica_at.len()],
            &integers(&state.replica_at),
        )
        .array(
            "exchange_streams",
            &[state.exchange_streams.len(), 4],
            &streams_to_words(&state.exchange_streams),
        )
        .array("last_end", &[ends.len()], &ends)
        .array("exchanges", &[state.exchanges.len(), 2], &exchanges)
        .array("round_trips", &[1], &[state.round_trips as i64])
        .array("frames", &[state.frames.len()], &state.frames)
        .array("energies", &[state.energies.len()], &state.energies)
        .array("angles", &[state.angles.len()], &state.angles)
        .write(path)
}

/// Reads the state of a replica exchange of `ladders` ladders, `levels` temperatures, `size` coordinates and `watched` dihedrals.
pub fn read_exchange(
    path: &Path,
    settings: &str,
    [ladders, levels, size, watched]: [usize; 4],
) -> Result<ReplicaExchangeState> {
    let file = open(path, settings)?;
    let n = ladders * levels;
    let replica_at: Vec<usize> = file
        .array::<i64>("replica_at", &[Some(n)])?
        .values
        .iter()
        .map(|&at| usize::try_from(at).ok().filter(|&at| at < levels))
        .collect::<Option<_>>()
        .with_context(|| format!("{} is damaged: replica_at makes no sense", path.display()))?;
    let end = |code: &i64| match code {
        1 => LastEnd::Lowest,
        2 => LastEnd::HighestFromLowest,
        _ => LastEnd::Neither,
    };
    let state = ReplicaExchangeState {
        replicas: get_replicas(&file, n, size)?,
        replica_at,
        exchange_streams: words_to_streams(
            &file
                .array("exchange_streams", &[Some(ladders), Some(4)])?
                .values,
        ),
        last_end: file
            .array::<i64>("last_end", &[Some(n)])?
            .values
            .iter()
            .map(end)
            .collect(),
        exchanges: file
            .array::<i64>("exchanges", &[Some(levels - 1), Some(2)])?
            .values
            .as_chunks::<2>()
            .0
            .iter()
            .map(|&[tried, accepted]| ExchangeCount {
                tried: tried as u64,
                accepted: accepted as u64,
            })
            .collect(),
        round_trips: file.array::<i64>("round_trips", &[Some(1)])?.values[0] as u64,
        frames: file.array("frames", &[None])?.values,
        energies: file.array("energies", &[None])?.values,
        angles: file.finite("angles", &[None])?.values,
    };
    ensure!(
        state.energies.len().is_multiple_of(n)
            && state.frames.len() == state.energies.len() / levels * size
            && state.angles.len() == state.energies.len() * watched,
        "{} is damaged: its frames and energies do not belong together",
        path.display()
    );
    Ok(state)
}
