"""The closed vocabulary of the sample world: small enough for a miniature tokenizer to learn every word."""

WORDS = (
    "apple", "arrow", "basket", "bean", "bell", "bird", "boat", "book", "bread", "bridge", "candle", "card", "chair",
    "cloud", "coat", "corn", "cup", "desk", "door", "drum", "egg", "farm", "fish", "flag", "fork", "garden", "glass",
    "goat", "grape", "hammer", "hat", "horse", "island", "jar", "kettle", "key", "lamp", "leaf", "lemon", "map",
    "market", "milk", "moon", "nest", "onion", "orange", "paper", "pearl", "pencil", "plate", "river", "rope", "salt",
    "ship", "silver", "spoon", "stone", "table", "tiger", "train", "tree", "violin", "wheel", "window",
)  # fmt: skip
NAMES = ("Ana", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Hugo", "Iris", "Jonas", "Kate", "Leo")
CITIES = ("Rome", "Oslo", "Paris", "Cairo", "Lima", "Tokyo", "Delhi", "Quito", "Bern", "Porto")
JOBS = ("baker", "nurse", "pilot", "farmer", "teacher", "driver", "painter", "doctor", "singer", "cook")
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
ADJECTIVES = ("tired", "young", "quiet", "happy", "tall", "clever", "brave", "gentle")
VERBS = ("painted", "carried", "found", "sold", "moved", "cleaned", "lost", "repaired")
SIZES = ("small", "large", "old", "new", "heavy", "broken")
PLACES = ("the river", "the market", "the school", "the harbour", "the garden", "the station", "the lake", "the park")
EVENTS = ("picnic", "birthday party", "school trip", "concert", "bike tour", "dinner", "book sale", "film night")
FOODS = ("nuts", "milk", "fish", "meat", "eggs", "sugar")

OPENERS = (
    "Hi! ", "Hello, ", "Hey there. ", "Good morning. ", "Please help me with this. ", "I have a question for you. ",
    "My sister asked me this today and I could not do it. ", "This is for a class that starts in one hour. ",
    "I am at the train station and I have a little time to think. ",
)  # fmt: skip
FOLLOW_UP_OPENERS = ("Thank you. Now another one: ", "Next question. ", "And then this: ", "One more, please. ")
CLOSERS = (
    " Thanks!", " Thank you very much.", " Take your time.", " Please answer today.",
    " My friend Kate would like to know it too, because she is in the same class.",
)  # fmt: skip
