"""What the registry does not have, and why."""

NO_RULE = "JAX has no derivative of it"
INTEGERS = "its result is of booleans, integers or keys"
NOTHING = "it computes nothing, or nothing that depends on an array's values"
REFERENCES = "it is written to in place, and a linear program has values only: it is refused"
REDUCED = "made by explicit sharding of reduced axes, not called by users"
INSIDE = "made inside of JAX or its kernels, not called by users"
EFFECT = "it is an effect, whose derivative is nothing"
CONSTANT = "a constant matrix"

# What only some versions of JAX since the lowest have, or differentiate.
IN_SOME_VERSIONS = frozenset({
    "box_get", "box_set", "call_hi_primitive", "get_global", "le_to", "log_extend", "log_read",
    "lt_to", "mpmd_map", "new_box", "new_log", "nextafter", "one_minus_square",
    "pbroadcast_dynamic", "polynomial", "precv", "program_order", "psend", "psum_scatter_start",
    "reduced_vary_cast", "reduced_vary_cast_p", "relayout", "vary_unreduced_cast",
    "vary_unreduced_cast_p", "with_memory_space_constraint", "xla_metadata_call",
    "xla_metadata_value",
})  # fmt: skip

# Primitives that have a rule in JAX's table of derivatives.
PRIMITIVES: dict[str, str] = {
    **dict.fromkeys(
        (
            "argmin", "eq_to", "mulhi", "random_bits", "random_fold_in", "random_seed",
            "random_split", "random_unwrap", "random_wrap", "shift_left", "shift_right_logical",
            "xor",
        ),
        INTEGERS,
    ),
    **dict.fromkeys(
        (
            "accum_grad_in_ref", "addupdate", "box_get", "box_set", "empty_ref", "free_ref",
            "freeze", "log_extend", "log_read", "new_box", "new_log", "new_ref", "run_state",
        ),
        REFERENCES,
    ),
    **dict.fromkeys(
        (
            "all_gather_reduced", "pbroadcast", "preduced", "reduced_vary_cast_p",
            "unreduced_psum", "unreduced_reduce_scatter", "vary_unreduced_cast_p",
        ),
        REDUCED,
    ),
    **dict.fromkeys(
        (
            "call_hi_primitive", "eval_jaxpr", "from_edtype", "masked_load", "masked_swap",
            "mpmd_map", "tie", "to_edtype",
        ),
        INSIDE,
    ),
    **dict.fromkeys(("debug_callback", "debug_print", "inspect_sharding"), EFFECT),
    **dict.fromkeys(("check", "dce_sink"), "it has no result"),
    "stage": "it disappears when it is traced",
    "composite": "its rule in JAX raises: it has to be given one by a custom_jvp",
    "ffi_call": "its rule in JAX raises: it has to be given one by a custom_jvp",
    "io_callback": "its rule in JAX raises: an effect has no derivative",
    "linear_call": "JAX pushes single directions through it, but no batch of them",
    "ragged_dot_general": "JAX pushes single directions through it, but no batch of them",
    "ragged_all_to_all": "it needs several devices, and a backend other than that of CPUs",
}  # fmt: skip

# Functions of modules, all of whose other functions are in the registry.
FUNCTIONS: dict[str, dict[str, str]] = {
    "jnp.linalg": {
        "eig": "JAX refuses to differentiate the vectors; lax.linalg.eig has an option for it",
        "matrix_rank": INTEGERS,
    },
    "jnp.fft": dict.fromkeys(("fftfreq", "rfftfreq"), CONSTANT),
    "jss": {"bernoulli": CONSTANT, "gammasgn": "a sign, whose derivative is zero"},
    "jsl": {
        **dict.fromkeys(
            ("dft", "hadamard", "helmert", "hilbert", "invhilbert", "invpascal", "pascal"), CONSTANT
        ),
        **dict.fromkeys(
            ("funm", "hessenberg", "qr_multiply", "rsf2csf", "schur", "solve_sylvester", "sqrtm"),
            NO_RULE,
        ),
        "eigh_tridiagonal": "JAX differentiates the steps of a bisection, which say nothing",
    },
    "jax.nn": {
        **dict.fromkeys(("get_scaled_dot_general_config", "one_hot"), NOTHING),
        **dict.fromkeys(("scaled_dot_general", "scaled_matmul"), NO_RULE + " on a CPU"),
    },
    "lax.linalg": {
        **dict.fromkeys(
            (
                "cholesky_update", "hessenberg", "householder_product", "ormqr", "schur",
                "symmetric_product", "tridiagonal",
            ),
            NO_RULE,
        ),
        "lu_pivots_to_permutation": INTEGERS,
    },
    "lax": {
        **dict.fromkeys(
            (
                "argmax", "argmin", "bitcast_convert_type", "bitwise_and", "bitwise_not",
                "bitwise_or", "bitwise_xor", "clz", "eq", "ge", "gt", "is_finite", "le", "lt",
                "mulhi", "ne", "population_count", "reduce_and", "reduce_or", "reduce_xor",
                "rng_bit_generator", "shift_left", "shift_right_arithmetic", "shift_right_logical",
            ),
            INTEGERS,
        ),
        **dict.fromkeys(
            (
                "after_all", "axis_index", "axis_size", "broadcast_shapes", "broadcasted_iota",
                "conv_dimension_numbers", "conv_general_permutations", "conv_general_shape_tuple",
                "conv_shape_tuple", "conv_transpose_shape_tuple", "create_token", "dce_sink",
                "dtype", "empty", "full", "full_like", "iota", "padtype_to_pads",
                "reduce_window_shape_tuple", "shape_as_value",
            ),
            NOTHING,
        ),
        **dict.fromkeys(
            (
                "igamma_grad_a", "nextafter", "pmin", "random_gamma_grad", "rng_uniform",
                "scatter_apply", "zeta",
            ),
            NO_RULE,
        ),
        **dict.fromkeys(("precv", "psend"), "between devices of other backends than that of CPUs"),
        "composite": PRIMITIVES["composite"],
        "pbroadcast": REDUCED,
        "ragged_all_to_all": PRIMITIVES["ragged_all_to_all"],
        "ragged_dot": PRIMITIVES["ragged_dot_general"],
        "ragged_dot_general": PRIMITIVES["ragged_dot_general"],
        "scaled_dot": NO_RULE,
    },
}  # fmt: skip
