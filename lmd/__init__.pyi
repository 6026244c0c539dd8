__version__: str
from .detector import LMD as LMD
from .diffusion import load_denoiser as load_denoiser
from .data import load as load, fetch as fetch, to_model as to_model
from .masking import Checkerboard as Checkerboard, Center as Center, RandomPatch as RandomPatch, mask_from_name as mask_from_name, register_mask as register_mask
from .inpainting import Inpaint as Inpaint, Denoise as Denoise, sample as sample
from .distance import MSE as MSE, SSIM as SSIM, LPIPS as LPIPS, distances_from_names as distances_from_names, register_distance as register_distance
from .aggregation import aggregate as aggregate
from .evaluation import roc_auc as roc_auc, evaluate as evaluate
from .settings import load_params as load_params, register_method as register_method
from .scoring import score_set as score_set
from .calibration import CalibratedDetector as CalibratedDetector, conformal_p_values as conformal_p_values, open_calibrated as open_calibrated
from .maps import explain as explain
from .estimator import OutOfDomain as OutOfDomain
