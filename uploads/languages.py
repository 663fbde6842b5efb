"""Languages: ISO 639-1 codes, which the server has, and English names, which clients send and expect in answers."""

from typing import Final

_NAMES: Final = """
af afrikaans|am amharic|ar arabic|as assamese|az azerbaijani|ba bashkir|be belarusian|bg bulgarian|bn bengali|bo tibetan
br breton|bs bosnian|ca catalan|cs czech|cy welsh|da danish|de german|el greek|en english|es spanish|et estonian
eu basque|fa persian|fi finnish|fo faroese|fr french|gl galician|gu gujarati|ha hausa|haw hawaiian|he hebrew|hi hindi
hr croatian|ht haitian creole|hu hungarian|hy armenian|id indonesian|is icelandic|it italian|ja japanese|jw javanese
ka georgian|kk kazakh|km khmer|kn kannada|ko korean|la latin|lb luxembourgish|ln lingala|lo lao|lt lithuanian
lv latvian|mg malagasy|mi maori|mk macedonian|ml malayalam|mn mongolian|mr marathi|ms malay|mt maltese|my myanmar
ne nepali|nl dutch|nn nynorsk|no norwegian|oc occitan|pa punjabi|pl polish|ps pashto|pt portuguese|ro romanian
ru russian|sa sanskrit|sd sindhi|si sinhala|sk slovak|sl slovenian|sn shona|so somali|sq albanian|sr serbian
su sundanese|sv swedish|sw swahili|ta tamil|te telugu|tg tajik|th thai|tk turkmen|tl tagalog|tr turkish|tt tatar
uk ukrainian|ur urdu|uz uzbek|vi vietnamese|yi yiddish|yo yoruba|yue cantonese|zh chinese
"""
NAMES: Final = dict(entry.split(" ", 1) for line in _NAMES.split("\n") for entry in line.split("|") if entry)
"""The English name in lower case of each code."""
_CODES: Final = {name: code for code, name in NAMES.items()} | {
    "mandarin": "zh",
    "castilian": "es",
    "flemish": "nl",
    "burmese": "my",
    "haitian": "ht",
    "valencian": "ca",
}
_ISO_639_3: Final = """
afr=af amh=am ara=ar aze=az bel=be bul=bg ben=bn bos=bs cat=ca ces=cs cze=cs cym=cy wel=cy dan=da deu=de ger=de ell=el
gre=el eng=en spa=es est=et eus=eu baq=eu fas=fa per=fa fin=fi fra=fr fre=fr glg=gl guj=gu hau=ha heb=he hin=hi hrv=hr
hun=hu hye=hy arm=hy ind=id isl=is ice=is ita=it jpn=ja kat=ka geo=ka kaz=kk khm=km kan=kn kor=ko lat=la lao=lo lit=lt
lav=lv mlg=mg mri=mi mkd=mk mac=mk mal=ml mon=mn mar=mr msa=ms may=ms mlt=mt mya=my bur=my nep=ne nld=nl dut=nl nno=nn
nor=no pan=pa pol=pl pus=ps por=pt ron=ro rum=ro rus=ru snd=sd sin=si slk=sk slo=sk slv=sl som=so sqi=sq alb=sq srp=sr
swe=sv swa=sw tam=ta tel=te tgk=tg tha=th tuk=tk tgl=tl tur=tr tat=tt ukr=uk urd=ur uzb=uz vie=vi yor=yo zho=zh chi=zh
cmn=zh
"""
_THREE_LETTERS: Final = dict(entry.split("=") for entry in _ISO_639_3.split())


def code_of(language: str) -> str:
    """The code of a language by its code, its BCP 47 tag, its ISO 639-3 code or its English name, in any case.

    Text that is none of these is returned in lower case: the server decides whether it is a language.
    """
    text = language.strip().lower()
    if text in _CODES:
        return _CODES[text]
    primary = text.replace("_", "-").partition("-")[0]
    return _THREE_LETTERS.get(primary, primary)


def name_of(code: str) -> str:
    """The English name in lower case; the code itself where there is none."""
    return NAMES.get(code, code)
