//! Measured matrices from the folder that `KANTAI_LATENCY_DATA` names.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use ndarray::Array2;
use placement::{CostMatrix, NodeName};

/// The PlanetLab slices, or nothing where no data folder is named.
pub(crate) fn planetlab() -> Result<Option<Vec<Array2<f64>>>> {
    let Some(folder) = std::env::var_os("KANTAI_LATENCY_DATA") else { return Ok(None) };
    let folder = Path::new(&folder).join("planetlab");
    (1..=3).map(|slice| read(&folder.join(format!("PlanetLabData_{slice}.gz")))).collect::<Result<_>>().map(Some)
}

/// A whitespace-separated square matrix of milliseconds as seconds; what is not positive is NaN.
fn read(path: &Path) -> Result<Array2<f64>> {
    let mut text = String::new();
    let file = File::open(path).with_context(|| format!("failed to open {}", path.display()))?;
    GzDecoder::new(file).read_to_string(&mut text).with_context(|| format!("failed to unpack {}", path.display()))?;
    let cells: Vec<f64> = text
        .split_whitespace()
        .map(|cell| cell.parse::<f64>().with_context(|| format!("failed to read {cell} in {}", path.display())))
        .collect::<Result<_>>()?;
    let size = cells.len().isqrt();
    ensure!(size * size == cells.len(), "failed to read {}: {} numbers are no square", path.display(), cells.len());
    let seconds = cells.into_iter().map(|ms| if ms > 0.0 { ms / 1000.0 } else { f64::NAN }).collect();
    Ok(Array2::from_shape_vec((size, size), seconds)?)
}

/// Names for `count` nodes.
pub(crate) fn names(count: usize) -> Vec<NodeName> {
    (0..count).map(|number| NodeName::new(format!("n{number:05}"))).collect()
}

/// Costs of a matrix in seconds.
pub(crate) fn costs(seconds: &Array2<f64>) -> CostMatrix {
    CostMatrix::new(names(seconds.nrows()), seconds.clone())
}
