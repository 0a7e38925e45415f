//! Writes the well-formed examples of each target into a folder, for a guided search to begin with:
//! `cargo run -p lockkeeper-fuzz --example seeds -- FOLDER`.

use lockkeeper_fuzz::TARGETS;
use std::{env, fs, io, path::PathBuf};

fn main() -> io::Result<()> {
    let folder: PathBuf = env::args_os().nth(1).unwrap_or_else(|| "seeds".into()).into();
    for target in TARGETS {
        let place = folder.join(target.name);
        fs::create_dir_all(&place)?;
        for (nth, bytes) in (target.seeds)().into_iter().enumerate() {
            fs::write(place.join(format!("seed-{nth:03}")), bytes)?;
        }
    }
    Ok(())
}
