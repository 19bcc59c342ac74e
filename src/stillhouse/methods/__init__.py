"""Methods: Lesson -> Terms. Every published method that is more than a preset, by its name."""

from stillhouse.methods.acclimation import Acclimation
from stillhouse.methods.attention import AT
from stillhouse.methods.boundary import AB
from stillhouse.methods.boxes import BCKD, ILD
from stillhouse.methods.catalogue import composed_methods, published
from stillhouse.methods.cirkd import CIRKD
from stillhouse.methods.classmaps import CATKD
from stillhouse.methods.contrast import CRD
from stillhouse.methods.correlation import CC
from stillhouse.methods.crosskd import CrossKD
from stillhouse.methods.ctkd import CTKD
from stillhouse.methods.defeat import DeFeat
from stillhouse.methods.factor import FT
from stillhouse.methods.fgd import FGD
from stillhouse.methods.fgfi import FGFI
from stillhouse.methods.fkd import FKD
from stillhouse.methods.flow import FSP
from stillhouse.methods.generation import MGD
from stillhouse.methods.gid import GID
from stillhouse.methods.hint import FitNet
from stillhouse.methods.ifvd import IFVD
from stillhouse.methods.information import VID
from stillhouse.methods.labelwise import CD, ID, L2D
from stillhouse.methods.localisation import LD
from stillhouse.methods.maskd import MasKD
from stillhouse.methods.mlkd import MLKD
from stillhouse.methods.overhaul import OFD
from stillhouse.methods.ranking import RM
from stillhouse.methods.regression import SRRL
from stillhouse.methods.relational import PKT, RKD, SP
from stillhouse.methods.review import ReviewKD
from stillhouse.methods.selectivity import NST
from stillhouse.methods.simkd import SimKD
from stillhouse.methods.skd import SKD

ab, acclimation, at, catkd, cc, cd, crd, ctkd = AB, Acclimation, AT, CATKD, CC, CD, CRD, CTKD
fitnet, fsp, ft, id, l2d, mgd, mlkd, nst, ofd = FitNet, FSP, FT, ID, L2D, MGD, MLKD, NST, OFD
bckd, crosskd, ild, ld, rm = BCKD, CrossKD, ILD, LD, RM
defeat, fgd, fgfi, fkd, gid, maskd = DeFeat, FGD, FGFI, FKD, GID, MasKD
cirkd, ifvd, skd = CIRKD, IFVD, SKD
pkt, reviewkd, rkd, simkd, sp, srrl, vid = PKT, ReviewKD, RKD, SimKD, SP, SRRL, VID

__all__ = [
    "ab",
    "acclimation",
    "at",
    "bckd",
    "catkd",
    "cc",
    "cd",
    "cirkd",
    "composed_methods",
    "crd",
    "crosskd",
    "ctkd",
    "defeat",
    "fgd",
    "fgfi",
    "fitnet",
    "fkd",
    "fsp",
    "ft",
    "gid",
    "id",
    "ifvd",
    "ild",
    "l2d",
    "ld",
    "maskd",
    "mgd",
    "mlkd",
    "nst",
    "ofd",
    "pkt",
    "published",
    "reviewkd",
    "rkd",
    "rm",
    "simkd",
    "skd",
    "sp",
    "srrl",
    "vid",
]
