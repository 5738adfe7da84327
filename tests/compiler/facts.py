"""Small facts of either kind, for tests that compile nothing."""

from moe_codesign.compiler.artifact import GpuFacts, ProgramFacts, RegionFacts, TpuFacts

GPU = GpuFacts(
    registers=168,
    spill_bytes=0,
    stack_bytes=8,
    shared_bytes=1024,
    code_bytes=4096,
    instructions={"LDGSTS": 4, "HGMMA": 4, "IADD3": 9},
    loop_instructions=20,
    loop_matrix=4,
)
AMD = GpuFacts(
    registers=128,
    spill_bytes=4,
    stack_bytes=0,
    shared_bytes=32768,
    code_bytes=8192,
    instructions={"v_mfma_f32_32x32x8_bf16": 16, "s_waitcnt": 3},
    loop_instructions=40,
    loop_matrix=16,
    waves_per_simd=2,
)
PROGRAM = ProgramFacts(
    bundles=100,
    slots={"matrix": 64, "vector": 8},
    widest={"matrix": 2, "vector": 4},
    instructions={"vmatmul": 64},
    matrix_by_unit={},
    spills=0,
    dma_bytes=65536,
    dynamic_dmas=1,
    regions=[RegionFacts(start=0, bundles=100, loops=1, conditional=True, slots={"matrix": 64})],
)
TPU = TpuFacts(
    cycles={"4x128x1024": 6131, "8x128x1024": 11379},
    prologue_cycles=883.0,
    fixed_cycles=-9.0,
    bucket_cycles=9.5,
    depth_fixed_cycles=0.0,
    depth_bucket_cycles=1.0,
    issue_cycles=130.0,
    program=PROGRAM,
)
