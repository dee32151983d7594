// All kernels. NVRTC and g++ instantiate the templates named in calls.py from this one text.
#pragma once

#include "activation.cuh"
#include "bent.cuh"
#include "channels_last.cuh"
#include "epilogue.cuh"
#include "epilogue_gradient.cuh"
#include "filtered.cuh"
#include "fir.cuh"
