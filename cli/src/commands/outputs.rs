//! Results that are there already are not overwritten.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Fails before any work if one of the files to be written is there already, or the state of an earlier run is.
///
/// `/dev/null`, pipes and the like may be written again.
pub(super) fn refuse_existing(outputs: &[PathBuf], state: &Path) -> Result<()> {
    if state.is_file() {
        bail!(
            "{} is the state of an earlier run; give --resume to go on with it, another --out, or --overwrite to begin again",
            state.display()
        );
    }
    if let Some(path) = outputs.iter().find(|path| path.is_file()) {
        bail!(
            "{} is there already; give another --out, or --overwrite to replace it",
            path.display()
        );
    }
    Ok(())
}
