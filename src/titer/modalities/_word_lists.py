"""Lists of words for notes: what never says anything, what turns a finding round, drugs, and what means the same."""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STOP_WORDS = _words(
    "a about after again all also am an and any are as at be because been before being both but by can could did do "
    "does during each for from further had has have having he her here him his how i if in into is it its may me "
    "more most my of off on once only or other our out over own s same she should so some such t than that the "
    "their them then there these they this those through to too under until up upon very was we were what when "
    "where which while who whom why will with would you your"
)
"""Words that say nothing of a patient: none is a medical term, and none has a synonym here."""

TURNS = _words(
    "no not nor none never without denies denied deny negative positive absent present neither cannot nothing "
    "unable possible probable likely unlikely suspected confirmed ruled rule left right bilateral bilaterally "
    "unilateral anterior posterior medial lateral superior inferior proximal distal upper lower dorsal ventral "
    "cranial caudal mild moderate severe acute chronic normal abnormal stable unstable increased decreased increase "
    "decrease high low higher lower large small larger smaller less more benign malignant old new first second "
    "third one two three four five six seven eight nine ten half once twice daily weekly monthly hour hours day "
    "days week weeks month months year years male female man woman mg ml cc cm mm mcg kg units french gauge before "
    "after pre post since"
)
"""Negation and certainty, sides, amounts, degrees, times: a change of one is a change of finding."""

GROUPS = tuple(
    # Words of one row stand in the same places, and none may stand for another.
    frozenset(row.split())
    for row in (
        "january february march april may june july august september october november december",
        "monday tuesday wednesday thursday friday saturday sunday today tomorrow yesterday tonight morning evening",
        "mother father brother sister son daughter wife husband parents aunt uncle grandmother grandfather child",
        "himself herself themselves itself",
        "inner outer front back above below inside outside deep superficial",
        "better worse improved worsened best worst good poor fair excellent",
        "white black blue green red yellow brown gray clear",
        "morphine fentanyl propofol benadryl zofran versed demerol dilaudid lidocaine",
        "inches ounces pounds feet degrees",
        "open closed opened",
        "start stop started stopped begin began ended",
        "single married divorced widowed employed unemployed retired",
        "always often sometimes rarely occasionally seldom",
        "hispanic caucasian african american asian",
    )
)

PREFIXES = (
    "ab",
    "ad",
    "in",
    "im",
    "ir",
    "un",
    "non",
    "dis",
    "hyper",
    "hypo",
    "re",
    "de",
    "pre",
    "post",
    "intra",
    "extra",
)

DRUGS = _words(
    "aspirin plavix coumadin lipitor zocor crestor lisinopril lasix digoxin lanoxin toprol coreg lopressor "
    "diltiazem cardizem norvasc verapamil nexium prilosec prevacid protonix zantac pepcid celexa zoloft prozac "
    "paxil lexapro seroquel risperdal zyprexa ambien xanax ativan valium klonopin neurontin lyrica dilantin "
    "tegretol keppra depakote advair albuterol singulair spiriva flovent combivent synthroid premarin insulin "
    "glucophage metformin glucotrol avandia actos tylenol advil motrin ibuprofen naproxen celebrex vioxx vicodin "
    "percocet darvocet ultram oxycontin cipro levaquin keflex ancef rocephin zithromax augmentin vancomycin "
    "gentamicin cefazolin kefzol marcaine heparin lovenox potassium sulfate chloride epinephrine methadone "
    "prednisone medrol flagyl bactrim reglan phenergan colace fosamax allopurinol flomax proscar detrol viagra "
    "claritin zyrtec allegra flonase nasonex benadryl zofran versed demerol dilaudid morphine fentanyl propofol"
)
"""Drugs that the notes name often; further ones are known by their endings."""

MEDICAL = re.compile(
    r".*(itis|ectomy|ostomy|otomy|oscopy|oscopic|plasty|graphy|gram|oma|osis|emia|uria|algia|pathy|plegia|rrhea|"
    r"cillin|mycin|cycline|floxacin|azole|olol|pril|sartan|statin|caine|prazole|sone|olone|azepam|zolam|profen|"
    r"parin|barbital|dipine|setron|tidine|triptan|codone|morphone|cardia|scope|stenosis|lysis)$"
)

ALIKE = tuple(
    row.split()
    for row in (
        # Our own list of words that carry no finding and mean the same in a report.
        "showed demonstrated revealed displayed",
        "shows demonstrates reveals displays",
        "performed undertaken accomplished completed",
        "noted observed seen",
        "identified located found",
        "obtained acquired gathered",
        "placed positioned put",
        "taken brought carried",
        "advised counseled instructed",
        "discussed reviewed explained",
        "approximately about roughly around",
        "however nevertheless though",
        "therefore hence consequently thus",
        "subsequently afterwards later thereafter",
        "previously formerly earlier",
        "currently presently now",
        "following afterwards subsequent",
        "utilized used employed",
        "using utilizing employing",
        "began started commenced",
        "slowly gradually",
        "carefully cautiously meticulously",
        "thoroughly completely fully entirely",
        "patient individual person",
        "procedure operation intervention",
        "occurred happened",
        "appears seems looks",
        "appear seem look",
        "attempt effort",
        "attempted tried",
        "prior previous earlier",
        "evaluation assessment examination",
        "significant considerable substantial notable",
        "along together",
        "multiple numerous several various",
        "brief short",
        "complaint concern problem",
        "problems concerns complaints",
        "history background",
        "consistent compatible",
        "entire whole",
        "remaining residual rest",
        "remained stayed continued",
        "sterile aseptic",
        "fashion manner way",
        "recommended advised suggested",
        "additional further extra",
        "reports states says",
        "reported stated said",
        "plan strategy",
        "room suite theater",
        "well adequately properly",
        "area region zone",
    )
)
