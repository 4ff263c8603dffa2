//! The day of a phone: how each signal goes on and off, by the hour.

/// How one signal behaves over the day: the share of phones that have it and how long it lasts, by
/// the hour of the local clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Rhythm {
    /// The share that has the signal at noon, where days begin, in `[0, 1]`: what a day ends with, so
    /// that days join.
    pub noon: f64,
    /// The share towards which each hour draws the signal, in `(0, 1)`.
    pub share: [f64; 24],
    /// Mean length in hours of a stretch with the signal that lies within the hour's conditions,
    /// above 0. The mean length without it follows: `hours (1 - share) / share`.
    pub hours: [f64; 24],
    /// Standard deviation of the logarithm of the lengths.
    pub sigma: f64,
}

/// On a charger.
///
/// Nobody published the shares by hour. They are assumed, together with [`WIFI`] and [`IDLE`], such that
/// of all phones of `phones-2025` in one zone
/// * four times as many are eligible at night as at the least hour of the day (Bonawitz et al. 2019,
///   arXiv:1902.01046, section 9: "a 4x difference between low and high numbers of participating
///   devices over a 24 hours period for a US-centric population");
/// * all three hold 8 % of the time, which is what FLASH's published traces of 1,000 phones give
///   (8.1 % for screen off, charging and WiFi, on a grid of half hours; counted by others, not here);
/// * the correlation of a phone's eligibility with itself after 30 and 60 minutes is near that of those
///   traces (0.58 and 0.42).
pub const CHARGING: Rhythm = Rhythm {
    noon: 0.148,
    share: [
        0.30, 0.32, 0.33, 0.33, 0.31, 0.28, 0.24, 0.20, 0.17, 0.14, 0.14, 0.14, //
        0.14, 0.14, 0.14, 0.14, 0.14, 0.14, 0.16, 0.17, 0.19, 0.21, 0.24, 0.27,
    ],
    hours: [
        5.0, 5.0, 5.0, 4.5, 4.0, 3.0, 2.5, 2.0, 1.5, 1.2, 1.2, 1.2, //
        1.2, 1.2, 1.2, 1.2, 1.2, 1.2, 1.2, 1.5, 2.0, 2.5, 4.0, 5.0,
    ],
    sigma: 1.0,
};

/// On WiFi, of those phones that ever are. Assumed as said of [`CHARGING`]; with the share of those
/// phones in `phones-2025`, time on WiFi is then just below half (Opensignal, January 2020: 10 to
/// 70 % by country).
pub const WIFI: Rhythm = Rhythm {
    noon: 0.640,
    share: [
        0.88, 0.89, 0.90, 0.90, 0.90, 0.88, 0.84, 0.76, 0.68, 0.64, 0.62, 0.62, //
        0.62, 0.62, 0.62, 0.62, 0.63, 0.66, 0.70, 0.75, 0.79, 0.82, 0.85, 0.87,
    ],
    hours: [
        10.0, 10.0, 10.0, 10.0, 9.0, 8.0, 6.0, 4.0, 3.0, 2.5, 2.5, 2.5, //
        2.5, 2.5, 2.5, 2.5, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0,
    ],
    sigma: 1.0,
};

/// Screen off or locked. Assumed as said of [`CHARGING`]: in use for four and a half hours a day, in
/// many short stretches.
pub const IDLE: Rhythm = Rhythm {
    noon: 0.733,
    share: [
        0.93, 0.96, 0.97, 0.98, 0.98, 0.97, 0.94, 0.87, 0.80, 0.76, 0.74, 0.73, //
        0.72, 0.73, 0.74, 0.74, 0.73, 0.72, 0.71, 0.70, 0.70, 0.71, 0.77, 0.86,
    ],
    hours: [
        1.2, 2.0, 2.5, 2.5, 2.5, 2.0, 1.0, 0.6, 0.4, 0.35, 0.35, 0.35, //
        0.3, 0.35, 0.35, 0.35, 0.35, 0.3, 0.3, 0.3, 0.3, 0.3, 0.4, 0.8,
    ],
    sigma: 1.2,
};
