"""
The words for every attribute, in English and Chinese, with synonyms. `{c}` takes a colour.

Only tables; how they become sentences is captions.py's. A synonym may be vaguer than the attribute ("long hair"),
never wrong.
"""

from __future__ import annotations

Words = dict[str, tuple[str, ...]]

SUBJECT_EN: dict[tuple[str, str], tuple[str, ...]] = {
    ("woman", "child"): ("girl", "little girl", "young girl", "female child", "kid"),
    ("woman", "young"): ("young woman", "woman", "girl", "young lady", "female"),
    ("woman", "adult"): ("woman", "middle-aged woman", "adult woman", "lady", "mature woman"),
    ("woman", "elderly"): ("old woman", "elderly woman", "grandmother", "senior woman", "old lady"),
    ("man", "child"): ("boy", "little boy", "young boy", "male child", "kid"),
    ("man", "young"): ("young man", "man", "guy", "young gentleman", "male"),
    ("man", "adult"): ("man", "middle-aged man", "adult man", "gentleman", "mature man"),
    ("man", "elderly"): ("old man", "elderly man", "grandfather", "senior man", "old gentleman"),
}
SUBJECT_ZH: dict[tuple[str, str], tuple[str, ...]] = {
    ("woman", "child"): ("小女孩", "女孩", "女童", "小姑娘", "儿童"),
    ("woman", "young"): ("年轻女性", "女孩", "女生", "美女", "女子", "少女", "年轻女人", "姑娘"),
    ("woman", "adult"): ("女性", "女人", "中年女性", "女士", "成年女性"),
    ("woman", "elderly"): ("老奶奶", "老年女性", "老太太", "奶奶", "老人"),
    ("man", "child"): ("小男孩", "男孩", "男童", "儿童"),
    ("man", "young"): ("年轻男性", "男生", "男孩", "帅哥", "男子", "小伙子", "年轻男人", "青年"),
    ("man", "adult"): ("男性", "男人", "中年男性", "先生", "大叔"),
    ("man", "elderly"): ("老爷爷", "老年男性", "老先生", "爷爷", "老人"),
}
COLOUR_EN: Words = {
    "black": ("black",), "dark brown": ("dark brown", "brown", "brunette"), "brown": ("brown", "chestnut"),
    "blonde": ("blonde", "golden", "blond"), "ginger": ("ginger", "red", "orange"), "grey": ("grey", "gray"),
    "white": ("white",), "pink": ("pink",), "blue": ("blue",), "purple": ("purple", "violet"), "green": ("green",),
    "red": ("red",), "orange": ("orange",), "yellow": ("yellow",), "teal": ("teal", "turquoise"),
}  # fmt: skip
COLOUR_ZH: Words = {
    "black": ("黑色", "黑"), "dark brown": ("深棕色", "深褐色", "棕色"), "brown": ("棕色", "褐色", "咖啡色"),
    "blonde": ("金色", "金"), "ginger": ("红色", "橘红色", "橙色"), "grey": ("灰色", "灰"), "white": ("白色", "白"),
    "pink": ("粉色", "粉红色"), "blue": ("蓝色", "蓝"), "purple": ("紫色", "紫"), "green": ("绿色", "绿"),
    "red": ("红色", "红"), "orange": ("橙色", "橘色"), "yellow": ("黄色", "黄"), "teal": ("青色", "蓝绿色"),
}  # fmt: skip
HAIR_EN: Words = {
    "bald": ("bald", "bald head", "shaved head", "no hair"),
    "crop": ("short {c} hair", "cropped {c} hair", "{c} crop cut", "short cropped {c} hair"),
    "side part": ("{c} side-parted hair", "short {c} hair with a side part", "short {c} hair", "side-swept {c} hair"),
    "quiff": ("{c} quiff", "swept-back {c} hair", "short {c} hair combed back", "slicked-back {c} hair"),
    "bob": ("{c} bob", "{c} bob haircut", "chin-length {c} hair", "{c} bob hair"),
    "long straight": ("long straight {c} hair", "long {c} hair", "straight {c} hair"),
    "long wavy": ("long wavy {c} hair", "wavy {c} hair", "long {c} hair", "{c} waves"),
    "curly": ("short curly {c} hair", "curly {c} hair", "{c} curls", "{c} afro"),
    "long curly": ("long curly {c} hair", "curly {c} hair", "long {c} curls"),
    "ponytail": ("{c} ponytail", "{c} hair in a ponytail", "{c} hair tied back"),
    "bun": ("{c} bun", "{c} hair in a bun", "{c} top knot"),
    "twin tails": ("{c} pigtails", "{c} twin tails", "{c} hair in pigtails"),
}
HAIR_ZH: Words = {
    "bald": ("光头", "没有头发", "秃头"),
    "crop": ("{c}短发", "{c}寸头", "{c}平头"),
    "side part": ("{c}偏分短发", "{c}侧分短发", "{c}短发", "{c}偏分头"),
    "quiff": ("{c}背头", "{c}飞机头", "{c}短发", "{c}大背头"),
    "bob": ("{c}波波头", "{c}齐肩短发", "{c}学生头", "{c}短发"),
    "long straight": ("{c}长直发", "{c}长发", "{c}直发"),
    "long wavy": ("{c}波浪长发", "{c}长发", "{c}大波浪", "{c}波浪卷发"),
    "curly": ("{c}卷发", "{c}短卷发", "{c}爆炸头", "{c}小卷发"),
    "long curly": ("{c}长卷发", "{c}卷发", "{c}长发"),
    "ponytail": ("{c}马尾", "{c}马尾辫", "扎{c}马尾"),
    "bun": ("{c}丸子头", "{c}发髻", "{c}盘发"),
    "twin tails": ("{c}双马尾", "扎{c}双马尾", "{c}双辫子"),
}
PLAIN_HAIR_EN: Words = {
    "crop": ("short hair",), "side part": ("short hair", "side part"), "quiff": ("short hair", "quiff"),
    "bob": ("bob", "bob haircut"), "long straight": ("long hair", "straight hair"),
    "long wavy": ("long hair", "wavy hair"),
    "curly": ("curly hair", "afro"), "long curly": ("long hair", "curly hair"), "ponytail": ("ponytail",),
    "bun": ("hair bun", "bun"), "twin tails": ("pigtails", "twin tails"),
}  # fmt: skip
PLAIN_HAIR_ZH: Words = {
    "crop": ("短发",), "side part": ("短发", "偏分"), "quiff": ("短发", "背头"), "bob": ("波波头", "短发"),
    "long straight": ("长发", "长直发"), "long wavy": ("长发", "波浪长发"), "curly": ("卷发",),
    "long curly": ("长发", "卷发"),
    "ponytail": ("马尾",), "bun": ("丸子头",), "twin tails": ("双马尾",),
}  # fmt: skip
GLASSES_EN: Words = {
    "none": ("no glasses", "without glasses"),
    "round": ("round glasses", "glasses", "round-framed glasses", "circular glasses"),
    "square": ("square glasses", "glasses", "rectangular glasses", "square-framed glasses"),
    "sunglasses": ("sunglasses", "dark glasses", "shades"),
}
GLASSES_ZH: Words = {
    "none": ("不戴眼镜", "没有眼镜"),
    "round": ("圆框眼镜", "眼镜", "圆形眼镜"),
    "square": ("方框眼镜", "眼镜", "方形眼镜"),
    "sunglasses": ("墨镜", "太阳镜"),
}
HAT_EN: Words = {
    "none": ("no hat", "without a hat"),
    "beanie": ("{c} beanie", "{c} knit hat", "{c} woolly hat"),
    "wide brim": ("{c} wide-brim hat", "{c} sun hat", "{c} brimmed hat"),
    "cap": ("{c} cap", "{c} baseball cap"),
    "beret": ("{c} beret",),
}
HAT_ZH: Words = {
    "none": ("不戴帽子", "没有帽子"),
    "beanie": ("{c}毛线帽", "{c}针织帽"),
    "wide brim": ("{c}宽檐帽", "{c}礼帽", "{c}遮阳帽"),
    "cap": ("{c}鸭舌帽", "{c}棒球帽"),
    "beret": ("{c}贝雷帽",),
}
BEARD_EN: Words = {
    "none": ("clean-shaven", "no beard"),
    "stubble": ("stubble", "light stubble", "five o'clock shadow"),
    "moustache": ("{c} moustache", "moustache", "{c} mustache"),
    "goatee": ("{c} goatee", "goatee", "{c} chin beard"),
    "full": ("{c} beard", "full {c} beard", "beard", "bushy {c} beard"),
}
BEARD_ZH: Words = {
    "none": ("没有胡子", "不留胡子"),
    "stubble": ("胡茬", "胡渣"),
    "moustache": ("{c}小胡子", "八字胡", "小胡子"),
    "goatee": ("{c}山羊胡", "山羊胡"),
    "full": ("{c}络腮胡", "{c}大胡子", "{c}胡子", "络腮胡"),
}
EARRINGS_EN: Words = {"stud": ("stud earrings", "earrings", "small earrings"), "hoop": ("hoop earrings", "earrings")}
EARRINGS_ZH: Words = {"stud": ("耳钉", "戴耳环", "耳饰"), "hoop": ("圆耳环", "戴耳环", "大耳环")}
EXPRESSION_EN: Words = {
    "neutral": ("neutral expression", "serious", "calm look", "serious expression"),
    "smile": ("gentle smile", "smiling", "smile", "soft smile"),
    "laugh": ("laughing", "big smile", "grinning", "showing teeth", "smiling"),
}
EXPRESSION_ZH: Words = {
    "neutral": ("表情平静", "严肃", "面无表情", "平静"),
    "smile": ("微笑", "浅笑", "面带微笑"),
    "laugh": ("大笑", "开怀大笑", "露齿笑", "开心", "笑容灿烂"),
}
CLOTHES_EN: Words = {
    "t-shirt": ("t-shirt", "tee", "t shirt"), "sweater": ("v-neck sweater", "sweater", "jumper"),
    "turtleneck": ("turtleneck", "turtleneck sweater", "high collar sweater"),
    "hoodie": ("hoodie", "hooded sweatshirt"),
    "suit": ("suit", "business suit", "blazer"), "shirt": ("shirt", "collared shirt", "button-up shirt"),
    "dress": ("dress", "off-shoulder dress", "gown"), "hanfu": ("hanfu", "traditional chinese hanfu", "chinese robe"),
}  # fmt: skip
CLOTHES_ZH: Words = {
    "t-shirt": ("T恤", "短袖"), "sweater": ("V领毛衣", "毛衣", "针织衫"), "turtleneck": ("高领毛衣", "高领衫", "高领"),
    "hoodie": ("连帽衫", "卫衣"), "suit": ("西装", "西服", "正装"), "shirt": ("衬衫", "衬衣"),
    "dress": ("连衣裙", "裙子", "露肩裙"), "hanfu": ("汉服", "中式古装", "古风汉服"),
}  # fmt: skip
SKIN_EN: Words = {
    "pale": ("pale skin", "very fair skin"), "fair": ("fair skin", "light skin"), "light": ("light skin", "beige skin"),
    "tan": ("tan skin", "olive skin"), "brown": ("brown skin",), "dark": ("dark skin", "deep skin"),
}  # fmt: skip
SKIN_ZH: Words = {
    "pale": ("皮肤白皙", "雪白皮肤"), "fair": ("白皮肤", "皮肤白"), "light": ("浅色皮肤", "自然肤色"),
    "tan": ("小麦色皮肤", "小麦肤色"), "brown": ("棕色皮肤",), "dark": ("黑皮肤", "深色皮肤"),
}  # fmt: skip
EYES_EN: Words = {
    "brown": ("brown eyes",), "blue": ("blue eyes",), "green": ("green eyes",), "amber": ("amber eyes", "hazel eyes"),
    "grey": ("grey eyes", "gray eyes"),
}  # fmt: skip
EYES_ZH: Words = {
    "brown": ("棕色眼睛", "褐色眼睛"), "blue": ("蓝眼睛", "蓝色眼睛"), "green": ("绿眼睛", "绿色眼睛"),
    "amber": ("琥珀色眼睛",), "grey": ("灰色眼睛",),
}  # fmt: skip
LIGHT_EN: Words = {
    "studio": ("soft studio light", "studio lighting", "soft light", "even light"),
    "warm": ("warm light", "warm lighting", "lamp light"), "cool": ("cool light", "cold light", "cool lighting"),
    "side": ("dramatic side light", "side light", "hard side lighting", "dramatic lighting", "low key"),
    "back": ("backlight", "rim light", "backlit"),
    "golden": ("golden hour", "sunset light", "golden hour light", "golden sunlight"),
    "neon": ("neon light", "neon lights", "pink and blue neon", "cyberpunk neon"),
}  # fmt: skip
LIGHT_ZH: Words = {
    "studio": ("柔和影棚光", "柔光", "影棚灯光", "柔和光线"), "warm": ("暖光", "暖色灯光", "温暖的光"),
    "cool": ("冷光", "冷色光", "冷色调"), "side": ("戏剧侧光", "侧光", "强烈侧光", "明暗对比"),
    "back": ("逆光", "轮廓光"), "golden": ("金色时刻", "黄金时刻", "夕阳光", "金色阳光", "落日余晖"),
    "neon": ("霓虹灯光", "霓虹", "赛博朋克霓虹", "霓虹光"),
}  # fmt: skip
BACKDROP_EN: Words = {
    "grey": ("grey", "gray studio", "plain grey"), "white": ("white", "plain white", "clean white"),
    "dark": ("dark", "black", "plain black"), "blue": ("blue", "plain blue"), "pink": ("pink", "plain pink"),
    "yellow": ("yellow", "plain yellow"), "forest": ("forest", "green forest", "nature", "park"),
    "sunset": ("sunset", "sunset sky", "evening sky"), "night city": ("night city", "city lights", "city at night"),
    "beach": ("beach", "seaside", "ocean"), "interior": ("indoor", "interior", "library", "bookshelf"),
    "blossom": ("cherry blossom", "sakura", "pink blossoms"),
}  # fmt: skip
BACKDROP_ZH: Words = {
    "grey": ("灰色", "灰色影棚", "纯灰"), "white": ("白色", "纯白", "白底"), "dark": ("黑色", "深色", "暗色"),
    "blue": ("蓝色", "纯蓝", "蓝底"), "pink": ("粉色", "粉红色"), "yellow": ("黄色", "纯黄"),
    "forest": ("森林", "树林", "公园", "绿色自然"), "sunset": ("日落", "夕阳天空", "黄昏天空"),
    "night city": ("城市夜景", "夜晚城市", "都市夜景"), "beach": ("海边", "海滩", "大海"),
    "interior": ("室内", "书房", "温馨室内"), "blossom": ("樱花", "花海", "粉色樱花"),
}  # fmt: skip
STYLE_EN: Words = {
    "realistic": ("realistic", "photorealistic", "photo", "realistic style", "3d render"),
    "anime": ("anime style", "anime", "cartoon", "cel shaded", "manga style"),
    "oil": ("oil painting", "oil painting style", "oil on canvas"),
    "watercolour": ("watercolor", "watercolour", "watercolor painting", "watercolour style"),
    "film": ("black and white", "black and white film", "monochrome", "black and white photo"),
    "vintage": ("vintage photo", "vintage", "retro film", "retro style", "old photo"),
}
STYLE_ZH: Words = {
    "realistic": ("写实", "写实风格", "照片", "真实感"), "anime": ("动漫风格", "动漫", "二次元", "卡通", "动画风格"),
    "oil": ("油画", "油画风格", "油画质感"), "watercolour": ("水彩", "水彩画", "水彩风格"),
    "film": ("黑白", "黑白胶片", "黑白照片", "黑白摄影"),
    "vintage": ("复古", "复古照片", "老照片", "复古胶片", "复古港风"),
}  # fmt: skip
VIEW_EN: Words = {
    "front": ("front view", "facing the camera", "looking at viewer"),
    "turned": ("three-quarter view", "head turned to the side", "side angle"),
}
VIEW_ZH: Words = {"front": ("正面", "正脸", "看镜头"), "turned": ("四分之三侧面", "侧脸", "侧身", "微侧")}
FILLER_EN = (
    "high quality", "detailed", "masterpiece", "best quality", "beautiful", "upper body", "headshot", "portrait", "4k",
    "professional", "close-up", "elegant", "sharp focus", "ultra detailed", "stylish", "bust",
)  # fmt: skip
FILLER_ZH = (
    "高清", "精致", "细节丰富", "高质量", "大师作品", "半身像", "头像", "人像", "特写", "好看", "优雅", "专业摄影",
    "气质", "唯美",
)  # fmt: skip
