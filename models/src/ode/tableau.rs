//! Coefficients of explicit Runge–Kutta methods.

/// Coefficients of an explicit Runge–Kutta method:
/// k_i = f(t + c_i h, y + h Σ_{j<i} a_ij k_j), y' = y + h Σ b_i k_i.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tableau {
    /// Usual name.
    pub name: &'static str,
    /// Order of the solution.
    pub order: u32,
    /// c
    pub nodes: &'static [f64],
    /// a, row i with i entries
    pub stages: &'static [&'static [f64]],
    /// b
    pub weights: &'static [f64],
    /// A second solution of the same stages, for an estimate of the error.
    pub embedded: Option<Embedded>,
}

/// The embedded solution y + h Σ b̂_i k_i: h Σ (b_i − b̂_i) k_i estimates the error of the less accurate of the two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Embedded {
    /// Order of the embedded solution.
    pub order: u32,
    /// b − b̂
    pub error_weights: &'static [f64],
}

impl Tableau {
    /// y' = y + h f(t, y), order 1.
    pub const EULER: Tableau = Tableau {
        name: "Euler",
        order: 1,
        nodes: &[0.0],
        stages: &[&[]],
        weights: &[1.0],
        embedded: None,
    };

    /// Heun's trapezoidal rule, order 2, with Euler embedded.
    pub const HEUN: Tableau = Tableau {
        name: "Heun",
        order: 2,
        nodes: &[0.0, 1.0],
        stages: &[&[], &[1.0]],
        weights: &[0.5, 0.5],
        embedded: Some(Embedded {
            order: 1,
            error_weights: &[-0.5, 0.5],
        }),
    };

    /// The classical method of order 4.
    pub const RK4: Tableau = Tableau {
        name: "classical Runge-Kutta",
        order: 4,
        nodes: &[0.0, 0.5, 0.5, 1.0],
        stages: &[&[], &[0.5], &[0.0, 0.5], &[0.0, 0.0, 1.0]],
        weights: &[1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0],
        embedded: None,
    };

    /// Dormand & Prince 5(4) (J. Comput. Appl. Math. 6, 19 (1980)); its last stage is the next step's first.
    pub const DORMAND_PRINCE: Tableau = Tableau {
        name: "Dormand-Prince 5(4)",
        order: 5,
        nodes: &[0.0, 1.0 / 5.0, 3.0 / 10.0, 4.0 / 5.0, 8.0 / 9.0, 1.0, 1.0],
        stages: &[
            &[],
            &[1.0 / 5.0],
            &[3.0 / 40.0, 9.0 / 40.0],
            &[44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0],
            &[
                19372.0 / 6561.0,
                -25360.0 / 2187.0,
                64448.0 / 6561.0,
                -212.0 / 729.0,
            ],
            &[
                9017.0 / 3168.0,
                -355.0 / 33.0,
                46732.0 / 5247.0,
                49.0 / 176.0,
                -5103.0 / 18656.0,
            ],
            &[
                35.0 / 384.0,
                0.0,
                500.0 / 1113.0,
                125.0 / 192.0,
                -2187.0 / 6784.0,
                11.0 / 84.0,
            ],
        ],
        weights: &[
            35.0 / 384.0,
            0.0,
            500.0 / 1113.0,
            125.0 / 192.0,
            -2187.0 / 6784.0,
            11.0 / 84.0,
            0.0,
        ],
        embedded: Some(Embedded {
            order: 4,
            error_weights: &[
                71.0 / 57600.0,
                0.0,
                -71.0 / 16695.0,
                71.0 / 1920.0,
                -17253.0 / 339200.0,
                22.0 / 525.0,
                -1.0 / 40.0,
            ],
        }),
    };

    /// Tsitouras 5(4) (Comput. Math. Appl. 62, 770 (2011), table 1); its last stage is the next step's first. Its error
    /// coefficients are smaller than Dormand & Prince's at the same cost.
    pub const TSITOURAS: Tableau = Tableau {
        name: "Tsitouras 5(4)",
        order: 5,
        nodes: &[0.0, 0.161, 0.327, 0.9, 0.980_025_540_904_509_7, 1.0, 1.0],
        stages: &[
            &[],
            &[0.161],
            &[-0.008_480_655_492_356_989, 0.335_480_655_492_357],
            &[
                2.897_153_057_105_493_5,
                -6.359_448_489_975_075,
                4.362_295_432_869_581_5,
            ],
            &[
                5.325_864_828_439_257,
                -11.748_883_564_062_828,
                7.495_539_342_889_836_5,
                -0.092_495_066_361_755_25,
            ],
            &[
                5.861_455_442_946_42,
                -12.920_969_317_847_11,
                8.159_367_898_576_159,
                -0.071_584_973_281_401,
                -0.028_269_050_394_068_383,
            ],
            &[
                0.096_460_766_818_065_23,
                0.01,
                0.479_889_650_414_499_6,
                1.379_008_574_103_742,
                -3.290_069_515_436_081,
                2.324_710_524_099_774,
            ],
        ],
        weights: &[
            0.096_460_766_818_065_23,
            0.01,
            0.479_889_650_414_499_6,
            1.379_008_574_103_742,
            -3.290_069_515_436_081,
            2.324_710_524_099_774,
            0.0,
        ],
        embedded: Some(Embedded {
            order: 4,
            error_weights: &[
                0.001_780_011_052_225_777,
                0.000_816_434_459_656_746_9,
                -0.007_880_878_010_261_995,
                0.144_711_007_173_262_9,
                -0.582_357_165_452_555_2,
                0.458_082_105_929_186_97,
                -1.0 / 66.0,
            ],
        }),
    };

    /// All methods.
    pub const ALL: [Tableau; 5] = [
        Tableau::EULER,
        Tableau::HEUN,
        Tableau::RK4,
        Tableau::DORMAND_PRINCE,
        Tableau::TSITOURAS,
    ];

    /// Whether the last stage is evaluated at the step's result, so that the next step can use it.
    pub(super) fn first_same_as_last(&self) -> bool {
        let last = self.nodes.len() - 1;
        last > 0
            && self.nodes[last] == 1.0
            && self.stages[last] == &self.weights[..last]
            && self.weights[last] == 0.0
    }
}
