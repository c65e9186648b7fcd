//! Drawings as PNG files, with a font that is compiled in: the same bytes on every machine.
//! Apart, because it is the only user of the rasteriser and of the font.

use crate::plots::Plot;
use resvg::{tiny_skia, usvg};
use std::sync::Arc;

/// Turns drawings into PNG files.
pub(crate) struct Rasteriser {
    options: usvg::Options<'static>,
}

impl Rasteriser {
    /// Loads the compiled-in Noto Sans; system fonts are not looked at.
    pub(crate) fn new() -> Self {
        let mut fonts = usvg::fontdb::Database::new();
        fonts.load_font_data(notosans::REGULAR_TTF.to_vec());
        fonts.load_font_data(notosans::BOLD_TTF.to_vec());
        fonts.set_sans_serif_family("Noto Sans");
        let options = usvg::Options {
            font_family: "Noto Sans".to_owned(),
            fontdb: Arc::new(fonts),
            ..usvg::Options::default()
        };
        Rasteriser { options }
    }

    /// The wide drawing of a plot under a heading, as the bytes of a PNG file.
    pub(crate) fn png(&self, plot: &Plot, heading: &str) -> Vec<u8> {
        let (svg, (width, height)) = plot.wide.standalone(&plot.title, heading);
        let tree = usvg::Tree::from_str(&svg, &self.options).expect("our own SVG is well formed");
        let mut pixels = tiny_skia::Pixmap::new(width, height).expect("a drawing has an area");
        resvg::render(&tree, tiny_skia::Transform::identity(), &mut pixels.as_mut());
        pixels.encode_png().expect("a pixmap in memory encodes")
    }
}
